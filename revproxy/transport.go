package revproxy

import (
	"context"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"sync"
	"time"

	"github.com/corridor-enclave/corridor/revproxy/upstream"
)

// A carrier is a way to speak to an app.
type carrier interface {
	// Exchange sends a request and returns the final answer; informational ones
	// go to inform, none of them once Exchange has returned.
	Exchange(req *http.Request, inform func(code int, fields http.Header) error) (*http.Response, error)
	CloseIdleConnections()
}

// dialer returns the way to connect to the app.
func dialer(c Config, network, address string) func(context.Context) (net.Conn, error) {
	if c.Dial != nil {
		return func(ctx context.Context) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, c.DialTimeout)
			defer cancel()
			return c.Dial(ctx)
		}
	}
	d := &net.Dialer{Timeout: c.DialTimeout, KeepAlive: 30 * time.Second}
	return func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, network, address) }
}

// newCarrier makes the pool of connections to one app. HTTP/2 is used only if
// asked for: the app is next door, and HTTP/1.1 gives each request a connection
// of its own.
func newCarrier(c Config, dial func(context.Context) (net.Conn, error), spare func(context.Context) net.Conn, h2c bool) carrier {
	if !c.NetHTTP && !h2c {
		return upstream.New(upstreamConfig(c, dial, spare))
	}
	var protocols http.Protocols
	protocols.SetHTTP1(!h2c)
	protocols.SetUnencryptedHTTP2(h2c)
	return netHTTP{&http.Transport{
		Protocols:              &protocols,
		Proxy:                  nil, // never take a detour because of an environment variable
		DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		MaxIdleConns:           c.MaxIdleConns,
		MaxIdleConnsPerHost:    c.MaxIdleConns, // there is one host; the default of 2 is for browsers
		IdleConnTimeout:        c.IdleConnTimeout,
		ResponseHeaderTimeout:  c.ResponseHeaderTimeout,
		ExpectContinueTimeout:  c.ExpectContinueTimeout,
		MaxResponseHeaderBytes: c.MaxResponseHeaderBytes,
		DisableCompression:     true, // or the transport would ask for gzip and unpack it
		WriteBufferSize:        16 << 10,
		ReadBufferSize:         16 << 10,
	}}
}

// upstreamConfig is what of a Config is about the ways to the apps.
func upstreamConfig(c Config, dial func(context.Context) (net.Conn, error), spare func(context.Context) net.Conn) upstream.Config {
	return upstream.Config{
		Dial:            dial,
		Spare:           spare,
		Repeat:          repeats,
		MaxIdle:         c.MaxIdleConns,
		MaxHeaderBytes:  int(c.MaxResponseHeaderBytes),
		HeaderTimeout:   c.ResponseHeaderTimeout,
		BodyTimeout:     c.ResponseBodyTimeout,
		IdleTimeout:     c.IdleConnTimeout,
		ContinueTimeout: c.ExpectContinueTimeout,
	}
}

// netHTTP carries requests by net/http.
type netHTTP struct{ *http.Transport }

// Exchange is RoundTrip with a trace, which another goroutine may call a moment
// longer.
func (t netHTTP) Exchange(req *http.Request, inform func(int, http.Header) error) (*http.Response, error) {
	var mu sync.Mutex
	over, continued := false, false
	ctx := httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		// Called before the body is sent, where Got1xxResponse may come behind: then
		// the server, asked for the body, would have said 100 to the client already.
		Got100Continue: func() {
			mu.Lock()
			defer mu.Unlock()
			if !over {
				continued = inform(http.StatusContinue, http.Header{}) == nil
			}
		},
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			mu.Lock()
			defer mu.Unlock()
			if over || code == http.StatusContinue && continued {
				return nil
			}
			return inform(code, http.Header(h))
		},
	})
	res, err := t.RoundTrip(req.WithContext(ctx))
	mu.Lock()
	defer mu.Unlock()
	over = true
	return res, err
}

// bufferSize is of the buffers that answers are copied through.
const bufferSize = 32 << 10

// A bufferPool lends the buffers that answers are copied through. It keeps
// pointers to arrays: to keep slices, Put would allocate their headers.
type bufferPool struct{ pool sync.Pool }

// Get returns a buffer of bufferSize bytes.
func (p *bufferPool) Get() []byte {
	if b, ok := p.pool.Get().(*[bufferSize]byte); ok {
		return b[:]
	}
	return make([]byte, bufferSize)
}

// Put takes a buffer back.
func (p *bufferPool) Put(b []byte) {
	if cap(b) >= bufferSize {
		p.pool.Put((*[bufferSize]byte)(b[:bufferSize]))
	}
}
