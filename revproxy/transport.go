package revproxy

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// newTransport makes the pool of connections to the app. HTTP/2 is off: the app
// is next door, and HTTP/1.1 gives each request a connection of its own.
func newTransport(c Config, network, address string) *http.Transport {
	dialer := &net.Dialer{Timeout: c.DialTimeout, KeepAlive: 30 * time.Second}
	return &http.Transport{
		Proxy: nil, // never take a detour because of an environment variable
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, address)
		},
		MaxIdleConns:           c.MaxIdleConns,
		MaxIdleConnsPerHost:    c.MaxIdleConns, // there is one host; the default of 2 is for browsers
		MaxConnsPerHost:        c.MaxConns,
		IdleConnTimeout:        c.IdleConnTimeout,
		ResponseHeaderTimeout:  c.ResponseHeaderTimeout,
		ExpectContinueTimeout:  c.ExpectContinueTimeout,
		MaxResponseHeaderBytes: c.MaxResponseHeaderBytes,
		DisableCompression:     true, // or the transport would ask for gzip and unpack it
		ForceAttemptHTTP2:      false,
		WriteBufferSize:        16 << 10,
		ReadBufferSize:         16 << 10,
	}
}

// bufferSize is what ReverseProxy would allocate for each body.
const bufferSize = 32 << 10

// A bufferPool lends the buffers that bodies are copied through. It keeps
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
