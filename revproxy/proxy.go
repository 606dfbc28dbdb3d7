// Package revproxy passes HTTP requests on to one app and its answers back,
// unchanged but for what a gateway has to change. It knows neither TLS nor
// VSOCK nor enclaves, listens on nothing, and does not know whether the app is
// ready; front does.
package revproxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// name is what the proxy calls itself in Via and Proxy-Status.
const name = "corridor"

// Config describes a proxy. Only App and Log have to be set: zero stands for
// the default, which the comment of each field names.
type Config struct {
	// App is where the app listens: http://HOST:PORT or unix:PATH.
	App *url.URL
	// Log gets one record for each request that the proxy answers itself.
	Log *slog.Logger

	// MaxIdleConns is how many unused connections to the app are kept; 512. A
	// smaller number than there are concurrent requests costs a new connection
	// for most of them.
	MaxIdleConns int
	// MaxConns bounds the connections to the app. Further requests wait for
	// one. Zero means no limit.
	MaxConns int
	// MaxBodyBytes bounds the body of a request. Zero means no limit.
	MaxBodyBytes int64
	// MaxResponseHeaderBytes bounds the head of the app's answer; 1 MiB.
	MaxResponseHeaderBytes int64

	// DialTimeout bounds connecting to the app; 5 s.
	DialTimeout time.Duration
	// ResponseHeaderTimeout bounds the time between the end of the request and
	// the head of the answer; 60 s. The body has no limit, and streams.
	ResponseHeaderTimeout time.Duration
	// IdleConnTimeout is how long an unused connection to the app is kept; 90 s.
	// Below the app's own limit no request meets a connection that just closes.
	IdleConnTimeout time.Duration
	// ExpectContinueTimeout is how long a body is held back for the app's 100
	// (Continue); 1 s.
	ExpectContinueTimeout time.Duration
}

// Counts are numbers of requests since the start.
type Counts struct {
	Requests     uint64 // all of them
	ClientGone   uint64 // the client went away before the head of the answer (499 in the log)
	ClientFaults uint64 // answered by the proxy with another 4xx
	AppFailures  uint64 // answered by the proxy with a 5xx
}

// A Proxy is an http.Handler that passes every request on to the app.
//
// What it changes in a request: hop-by-hop fields go (RFC 9110 7.6.1); Via is
// appended; Max-Forwards of OPTIONS counts down (7.6.2); what a client says
// about where a request comes from is replaced by what the proxy knows, in
// X-Forwarded-For, -Host, -Proto, X-Real-IP and Forwarded (RFC 7239). A
// RemoteAddr that is not an IP address yields no client address: none is
// claimed. The target is sent byte by byte as it came, whatever a router in
// front did to the URL, and so is Host.
//
// What it changes in an answer: hop-by-hop fields go. Content is never
// recoded. An answer that ends with the app's connection, without a length, may
// have been cut; an HTTP/1 client gets it in the same form and not as chunks
// with a proper end, which would vouch for it. HTTP/2 has no such form: there it
// ends as if it were whole.
//
// TRACE and CONNECT are refused. An answer made here, not by the app, has a
// Proxy-Status field (RFC 9209) with the cause.
type Proxy struct {
	config    Config
	engine    *httputil.ReverseProxy
	transport *http.Transport

	requests, clientGone, clientFaults, appFailures atomic.Uint64
}

// New checks a Config and makes a Proxy, which connects to nothing before the
// first request.
func New(c Config) (*Proxy, error) {
	network, address, err := appAddress(c.App)
	if err != nil {
		return nil, err
	}
	if c.Log == nil {
		return nil, errors.New("revproxy: no logger given")
	}
	if err := c.complete(); err != nil {
		return nil, err
	}
	p := &Proxy{config: c, transport: newTransport(c, network, address)}
	host := address
	if network == "unix" {
		host = "localhost" // what an HTTP/1.0 request without Host is taken for
	}
	p.engine = &httputil.ReverseProxy{
		Rewrite:        func(pr *httputil.ProxyRequest) { rewrite(pr, host) },
		Transport:      p.transport,
		BufferPool:     &bufferPool{},
		ModifyResponse: keepForm,
		ErrorHandler:   p.fail,
		ErrorLog:       slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug),
	}
	return p, nil
}

// appAddress turns the app's URL into what net.Dial takes.
func appAddress(app *url.URL) (network, address string, err error) {
	switch {
	case app == nil:
		return "", "", errors.New("revproxy: no app given")
	case app.Scheme == "unix" && app.Host == "" && app.Path+app.Opaque != "":
		return "unix", app.Path + app.Opaque, nil
	case app.Scheme != "http" || app.Hostname() == "":
		return "", "", fmt.Errorf("revproxy: app %q is neither http://HOST:PORT nor unix:PATH", app)
	case strings.Trim(app.Path, "/") != "" || app.RawQuery != "" || app.User != nil || app.Fragment != "":
		return "", "", fmt.Errorf("revproxy: app %q has more than a host and a port", app)
	case app.Port() == "":
		return "tcp", app.Host + ":80", nil
	}
	return "tcp", app.Host, nil
}

// complete puts in the defaults.
func (c *Config) complete() error {
	for _, n := range []int64{int64(c.MaxIdleConns), int64(c.MaxConns), c.MaxBodyBytes, c.MaxResponseHeaderBytes,
		int64(c.DialTimeout), int64(c.ResponseHeaderTimeout), int64(c.IdleConnTimeout), int64(c.ExpectContinueTimeout)} {
		if n < 0 {
			return errors.New("revproxy: a limit or timeout is negative")
		}
	}
	orElse(&c.MaxIdleConns, 512)
	orElse(&c.MaxResponseHeaderBytes, 1<<20)
	orElse(&c.DialTimeout, 5*time.Second)
	orElse(&c.ResponseHeaderTimeout, 60*time.Second)
	orElse(&c.IdleConnTimeout, 90*time.Second)
	orElse(&c.ExpectContinueTimeout, time.Second)
	return nil
}

func orElse[T comparable](value *T, def T) {
	var zero T
	if *value == zero {
		*value = def
	}
}

// exchangeKey is the context key of an *exchange.
type exchangeKey struct{}

// ServeHTTP passes one request on.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.requests.Add(1)
	if f, ok := p.refuse(w, r); ok {
		p.answer(w, r, f, nil)
		return
	}
	if r.Method == http.MethodOptions && r.Header.Get("Max-Forwards") == "0" {
		w.Header().Set("Allow", allowed) // we are its final recipient (RFC 9110 7.6.2)
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if r.ContentLength != 0 && r.Body != nil {
		x := &exchange{in: r, body: r.Body}
		if p.config.MaxBodyBytes > 0 {
			x.body = http.MaxBytesReader(w, r.Body, p.config.MaxBodyBytes)
		}
		r = r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x))
		r.Body = x
	}
	p.engine.ServeHTTP(w, r)
}

// allowed is the Allow field: what is not here is refused, whatever the app says.
const allowed = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"

// refuse says what is wrong with a request that must not reach the app.
func (p *Proxy) refuse(w http.ResponseWriter, r *http.Request) (failure, bool) {
	switch {
	case r.Method == http.MethodConnect, r.Method == http.MethodTrace:
		// A tunnel has no place here (RFC 9110 9.3.6), and TRACE would show
		// a client what the proxy adds (9.3.8).
		w.Header().Set("Allow", allowed)
		return failure{http.StatusMethodNotAllowed, "http_request_denied", "method " + r.Method + " is not passed on"}, true
	case p.config.MaxBodyBytes > 0 && r.ContentLength > p.config.MaxBodyBytes:
		return tooLarge(p.config.MaxBodyBytes), true
	}
	return failure{}, false
}

// Counts returns the numbers so far. They are read one by one, so they need not
// be of the same instant.
func (p *Proxy) Counts() Counts {
	return Counts{
		Requests:     p.requests.Load(),
		ClientGone:   p.clientGone.Load(),
		ClientFaults: p.clientFaults.Load(),
		AppFailures:  p.appFailures.Load(),
	}
}

// Close drops the unused connections to the app. Requests under way go on, and
// so would new ones: stop the server in front first.
func (p *Proxy) Close() { p.transport.CloseIdleConnections() }

// countDown lowers Max-Forwards, which a client sets to limit the way of an
// OPTIONS request. What is not a number is passed on.
func countDown(h http.Header) {
	if n, err := strconv.ParseUint(h.Get("Max-Forwards"), 10, 32); err == nil && n > 0 {
		h.Set("Max-Forwards", strconv.FormatUint(n-1, 10))
	}
}
