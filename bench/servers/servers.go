// Package servers holds the small servers that a measurement puts in place of, or
// beside, what it measures: our proxy alone, the standard library's twice, a relay
// that only copies, and a server that does next to nothing. They are peers to be
// compared with, not examples; bench/hops starts them as processes of their own.
package servers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"github.com/corridor-enclave/corridor/revproxy"
	"github.com/corridor-enclave/corridor/revproxy/h2"
)

// A Kind is one of the servers.
type Kind string

// The kinds.
const (
	Null     Kind = "null"     // answers 12 bytes to anything, without understanding it
	Corridor Kind = "corridor" // our reverse proxy alone
	Default  Kind = "default"  // httputil.ReverseProxy, as it comes
	Tuned    Kind = "tuned"    // the same with what people tune: idle connections, buffers
	Relay    Kind = "relay"    // copies bytes both ways
)

// Kinds returns all of them.
func Kinds() []Kind { return []Kind{Null, Corridor, Default, Tuned, Relay} }

// A Server serves connections until its listener closes.
type Server struct {
	serve func(net.Listener) error
	close func()
}

// H2C in front of HOST:PORT has a proxy speak HTTP/2 to it, without TLS.
const H2C = "h2c://"

// New returns a server of the kind, which passes on to the address to: HOST:PORT,
// the same behind H2C for Corridor and Tuned, or the path of a unix socket. Null has
// none. Clients of the proxies may speak HTTP/2 without TLS too.
func New(kind Kind, to string, log *slog.Logger) (*Server, error) {
	network := "tcp"
	if len(to) > 0 && to[0] == '/' {
		network = "unix"
	}
	switch kind {
	case Null:
		return streams(func(c net.Conn) { answer(c) }), nil
	case Relay:
		return streams(func(c net.Conn) { carry(c, network, to) }), nil
	case Corridor:
		app := &url.URL{Scheme: "http", Host: to}
		if host, ok := strings.CutPrefix(to, H2C); ok {
			app = &url.URL{Scheme: "h2c", Host: host}
		}
		if network == "unix" {
			app = &url.URL{Scheme: "unix", Path: to}
		}
		p, err := revproxy.New(revproxy.Config{Apps: []*url.URL{app}, Log: log})
		if err != nil {
			return nil, err
		}
		return inLane(p)
	case Default, Tuned:
		if network != "tcp" || kind == Default && strings.HasPrefix(to, H2C) {
			return nil, fmt.Errorf("servers: %s reaches no app by %q", kind, to)
		}
		return requests(standard(kind, to), func() {}), nil
	}
	return nil, fmt.Errorf("servers: no server is called %q", kind)
}

// Run serves until ctx ends, and closes the listener.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer s.close()
	err := s.serve(l)
	if ctx.Err() != nil && (errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed)) {
		return nil
	}
	return fmt.Errorf("servers: %w", err)
}

// requests serves HTTP. Connections that are open at the end are dropped.
func requests(h http.Handler, release func()) *Server {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, Protocols: Protocols()}
	return &Server{serve: srv.Serve, close: func() { srv.Close(); release() }}
}

// Protocols are all that net/http knows: what a client speaks is up to it.
func Protocols() *http.Protocols {
	var p http.Protocols
	p.SetHTTP1(true)
	p.SetHTTP2(true)
	p.SetUnencryptedHTTP2(true)
	return &p
}

// inLane serves a proxy with its fast lane in front of the library's server.
func inLane(p *revproxy.Proxy) (*Server, error) {
	srv := &http.Server{Handler: p, ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, Protocols: Protocols()}
	if _, err := h2.Configure(srv); err != nil {
		return nil, err
	}
	lane, err := p.NewLane(revproxy.LaneConfig{Server: srv})
	if err != nil {
		return nil, err
	}
	return &Server{
		serve: func(l net.Listener) error { return srv.Serve(lane.Listen(l)) },
		close: func() { srv.Close(); lane.Close(); p.Close() },
	}, nil
}

// standard returns the library's proxy, untouched but for its target, or tuned the
// way that its users tune it: as many idle connections as there are busy ones, and
// buffers that are used again.
func standard(kind Kind, to string) *httputil.ReverseProxy {
	host, h2c := strings.CutPrefix(to, H2C)
	target := &url.URL{Scheme: "http", Host: host}
	p := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.SetXForwarded()
	}}
	if kind == Tuned {
		var protocols http.Protocols
		protocols.SetHTTP1(!h2c)
		protocols.SetUnencryptedHTTP2(h2c)
		p.Transport = &http.Transport{MaxIdleConns: 1024, MaxIdleConnsPerHost: 1024, IdleConnTimeout: 90 * time.Second, DisableCompression: true, Protocols: &protocols}
		p.BufferPool = newBuffers()
	}
	return p
}
