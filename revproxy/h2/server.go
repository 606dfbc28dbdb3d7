package h2

import (
	"context"
	"crypto/tls"
	"errors"
	"log"
	"net"
	"net/http"
	"sync"
	"time"
)

// unencrypted is the name under which net/http looks for who serves clients that
// begin with the preface, without TLS.
const unencrypted = "unencrypted_http2"

// Limits and timeouts of a server that says nothing else.
const (
	defaultStreams     = 250
	defaultPingTimeout = 15 * time.Second
	// prefaceTimeout is for the client's first bytes, its SETTINGS among them.
	prefaceTimeout = 10 * time.Second
	// lingerTimeout is how long a connection that was told to go stays open, lest a
	// reset overtake what it was told.
	lingerTimeout = time.Second
	// lingerBytes is how much of what its client still sends is read meanwhile.
	lingerBytes = 1 << 20
	// headerTableSize is what the client's table for compressing may take here, and
	// ours of it (RFC 7541 section 4.2).
	headerTableSize = 4096
)

// A Server serves the HTTP/2 connections of an http.Server.
type Server struct {
	http    *http.Server
	streams uint32 // that a connection may have at a time
	headers uint32 // bytes of a header list (RFC 9113 section 10.5.1)
	conn    int64  // receive window of a connection
	stream  int64  // and of a stream
	ping    time.Duration
	pong    time.Duration

	rooms  rooms
	chunks chunks

	mu    sync.Mutex
	conns map[*conn]bool
	going bool // new connections are told to go at once
}

// Configure makes s serve HTTP/2 by this package: what TLS agrees upon as "h2", and,
// if s.Protocols has it, clients that begin with it. It is called before s serves.
//
// Of s.HTTP2 it takes MaxConcurrentStreams, MaxReceiveBufferPerConnection and
// -PerStream, SendPingTimeout and PingTimeout, of s IdleTimeout, MaxHeaderBytes and
// ErrorLog. s.ReadTimeout and s.WriteTimeout have to be zero.
func Configure(s *http.Server) (*Server, error) {
	if s.ReadTimeout != 0 || s.WriteTimeout != 0 {
		return nil, errors.New("h2: a server with ReadTimeout or WriteTimeout")
	}
	conf := s.HTTP2
	if conf == nil {
		conf = &http.HTTP2Config{}
	}
	headers := s.MaxHeaderBytes
	if headers <= 0 {
		headers = http.DefaultMaxHeaderBytes
	}
	h := &Server{
		http:    s,
		streams: uint32(orDefault(conf.MaxConcurrentStreams, defaultStreams)), //nolint:gosec // a number of streams
		headers: uint32(headers) + 32*10,                                      //nolint:gosec // as net/http: 10 fields of 32 bytes more
		conn:    int64(max(orDefault(conf.MaxReceiveBufferPerConnection, defaultWindow), initialWindow)),
		stream:  int64(orDefault(conf.MaxReceiveBufferPerStream, defaultWindow)),
		ping:    conf.SendPingTimeout,
		pong:    conf.PingTimeout,
		conns:   make(map[*conn]bool),
	}
	if h.pong <= 0 {
		h.pong = defaultPingTimeout
	}
	if s.TLSNextProto == nil {
		s.TLSNextProto = make(map[string]func(*http.Server, *tls.Conn, http.Handler))
	}
	s.TLSNextProto["h2"] = func(_ *http.Server, c *tls.Conn, next http.Handler) { h.serve(c, next, false) }
	s.TLSNextProto[unencrypted] = func(_ *http.Server, c *tls.Conn, next http.Handler) {
		if bare, ok := c.NetConn().(interface{ UnencryptedNetConn() net.Conn }); ok {
			h.serve(bare.UnencryptedNetConn(), next, true)
		}
	}
	s.RegisterOnShutdown(h.GoAway)
	return h, nil
}

func orDefault(v, otherwise int) int {
	if v > 0 {
		return v
	}
	return otherwise
}

// GoAway tells all clients, and those that connect from now on, to open no more
// streams, and closes connections when they have none any more. http.Server's
// Shutdown calls it, and waits for them.
func (s *Server) GoAway() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.going = true
	for c := range s.conns {
		c.goAway()
	}
}

// serve serves a connection until its end. net/http has read the preface of those
// without TLS.
func (s *Server) serve(nc net.Conn, next http.Handler, prefaced bool) {
	base := context.Background()
	if b, ok := next.(interface{ BaseContext() context.Context }); ok {
		base = b.BaseContext()
	}
	c := newConn(s, nc, next, base)
	s.mu.Lock()
	s.conns[c] = true
	going := s.going
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, c)
	}()
	c.serve(prefaced, going)
}

func (s *Server) logf(format string, args ...any) {
	if l := s.http.ErrorLog; l != nil {
		l.Printf(format, args...)
		return
	}
	log.Printf(format, args...) // as net/http does
}
