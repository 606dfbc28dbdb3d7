// Package upstream carries HTTP/1.1 requests to one app over connections that it
// keeps. The goroutine that asks also reads the answer, so nothing is handed
// from goroutine to goroutine as in http.Transport. It has no TLS, no HTTP/2, no
// redirects and no compression, and decides nothing about requests: revproxy does.
package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"sync"
	"time"
)

// ErrHead reports that the head of an answer is larger than MaxHeaderBytes. The
// connection has been closed.
var ErrHead = errors.New("upstream: the head of the answer is too large")

// ErrSilent reports that the app ended the connection before the first byte of an
// answer. Whether it saw the request is not known. Another error says how.
var ErrSilent = errors.New("upstream: the app ended the connection without an answer")

// Config describes a Transport. Dial has to be set.
type Config struct {
	// Dial connects to the app.
	Dial func(context.Context) (net.Conn, error)
	// Spare returns a connection to the app that another Transport has kept and does
	// not need now, or nil. It is asked before Dial, with the same context. Nil:
	// there is no other.
	Spare func(context.Context) net.Conn
	// Repeat says whether a request without a body may be sent twice. Nil: by its
	// method.
	Repeat func(*http.Request) bool
	// MaxIdle is how many unused connections are kept; zero keeps none.
	MaxIdle int
	// MaxHeaderBytes bounds the head of an answer, with the informational ones
	// before it; zero stands for 1 MiB.
	MaxHeaderBytes int
	// HeaderTimeout bounds the time from the end of the request to the head of
	// the answer; zero means no limit.
	HeaderTimeout time.Duration
	// BodyTimeout bounds the silence within an answer, and how long the app may take
	// nothing of a request body; zero means no limit.
	BodyTimeout time.Duration
	// IdleTimeout is how long an unused connection is kept; zero means for ever.
	IdleTimeout time.Duration
	// ContinueTimeout is how long a body is held back for the app's 100
	// (Continue) if the client asked for one; zero sends it at once.
	ContinueTimeout time.Duration
}

// A Transport is an http.RoundTripper for one app. It sends the target of a
// request byte by byte as it is in URL.Opaque, also if it begins with two
// slashes, with URL.RawQuery behind it.
//
// One exchange:
//
//	 take or dial      head, body                first byte … head of the answer
//	──────────────► sending ──────────► waiting ─────────────────────────► body
//	      ▲            │ (a goroutine of its own,    │ closed, was kept,       │ read to its end
//	      │            │  if there is a body)        │ idempotent, no body     ▼
//	      └────────────┴─────── once more ◄──────────┘                    kept again
//
// A connection is kept only if both messages ended where they said, and nothing
// came after the answer. When the context ends, the connection is closed.
type Transport struct {
	cfg     Config
	idle    pool
	buffers sync.Pool // of *lentBuffer
}

// New makes a Transport, which connects to nothing before the first request.
func New(c Config) *Transport {
	if c.MaxHeaderBytes == 0 {
		c.MaxHeaderBytes = 1 << 20
	}
	return &Transport{cfg: c, idle: pool{max: c.MaxIdle, age: c.IdleTimeout}}
}

// CloseIdleConnections closes the unused connections. Exchanges under way go on.
func (t *Transport) CloseIdleConnections() { t.idle.closeAll() }

// RoundTrip does as Exchange, and gives informational answers to the trace of the
// request's context.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	trace := httptrace.ContextClientTrace(req.Context())
	if trace == nil || trace.Got1xxResponse == nil {
		return t.Exchange(req, nil)
	}
	return t.Exchange(req, func(code int, h http.Header) error {
		return trace.Got1xxResponse(code, textproto.MIMEHeader(h))
	})
}

// Exchange sends a request and returns when the head of the answer is there.
// The caller reads the answer's body or closes it. The request's body is read in
// another goroutine, possibly a moment longer than the answer's body, and always
// closed. Informational answers are given to inform, in this goroutine, unless it
// is nil; its error ends the exchange.
//
// An idempotent request without a body is sent again, once and on a new
// connection, if a kept connection ended without a byte of the answer (RFC 9110
// section 9.2.2, RFC 9112 section 9.3.1).
//
// Errors: what Dial returned; ErrHead; the context's; os.ErrDeadlineExceeded if a
// timeout passed; io.EOF, io.ErrUnexpectedEOF or an errno if the app ended the
// connection; else the answer is not HTTP.
func (t *Transport) Exchange(req *http.Request, inform func(code int, fields http.Header) error) (*http.Response, error) {
	if err := check(req); err != nil {
		closeBody(req)
		return nil, err
	}
	sent := false
	c := t.idle.take()
	if c == nil {
		c = t.spare(req.Context())
	}
	if c != nil {
		sent = true
		res, err := t.carry(c, req, inform)
		if err == nil || !errors.Is(err, errStale) || !t.replayable(req) {
			return res, err
		}
	}
	c, err := t.dial(req.Context())
	if err != nil {
		closeBody(req)
		if sent {
			err = fmt.Errorf("%w, and then: %w", ErrSilent, err)
		}
		return nil, err
	}
	return t.carry(c, req, inform)
}

// spare takes over a connection that another Transport has kept.
func (t *Transport) spare(ctx context.Context) *conn {
	if t.cfg.Spare == nil {
		return nil
	}
	nc := t.cfg.Spare(ctx)
	if nc == nil {
		return nil
	}
	c := newConn(nc, t.cfg.BodyTimeout)
	c.kept = true
	return c
}

// Give gives an unused connection away, nil if there is none.
func (t *Transport) Give() net.Conn {
	c := t.idle.take()
	if c == nil {
		return nil
	}
	_ = c.SetReadDeadline(time.Time{})
	return c.Conn
}

// Idle returns how many unused connections there are.
func (t *Transport) Idle() int { return t.idle.size() }

func (t *Transport) dial(ctx context.Context) (*conn, error) {
	c, err := t.cfg.Dial(ctx)
	if err != nil {
		return nil, err
	}
	return newConn(c, t.cfg.BodyTimeout), nil
}

// replayable reports whether a request may be sent twice.
func (t *Transport) replayable(req *http.Request) bool {
	if hasBody(req) || req.Context().Err() != nil {
		return false
	}
	if t.cfg.Repeat != nil {
		return t.cfg.Repeat(req)
	}
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}

// errStale reports that a kept connection ended before the answer began.
var errStale = errors.New("upstream: a kept connection ended without an answer")

// An exchange is one request and its answer on one connection.
type exchange struct {
	t   *Transport
	c   *conn
	req *http.Request

	inform  func(code int, fields http.Header) error // nil: nobody wants to know
	release func() bool                              // takes the context's hand off the connection

	sending *sending // nil if the request has no body
}

func (t *Transport) carry(c *conn, req *http.Request, inform func(int, http.Header) error) (*http.Response, error) {
	x := &exchange{t: t, c: c, req: req, inform: inform}
	x.release = context.AfterFunc(req.Context(), func() { _ = c.Close() })
	sendErr := x.send()
	res, err := x.receive()
	if err == nil {
		return res, nil
	}
	x.end(false)
	return nil, x.explain(sendErr, err)
}

// explain finds the reason behind a failure to read the answer.
func (x *exchange) explain(sendErr, err error) error {
	if ctx := x.req.Context(); ctx.Err() != nil {
		return ctx.Err()
	}
	if x.sending != nil {
		if fault := x.sending.fault.Load(); fault != nil {
			return fmt.Errorf("upstream: reading the request's body: %w", *fault)
		}
	}
	if sendErr != nil && !errors.Is(err, errStale) {
		if errors.Is(err, ErrSilent) {
			return fmt.Errorf("%w: sending the request: %w", ErrSilent, sendErr)
		}
		return fmt.Errorf("upstream: sending the request: %w", sendErr)
	}
	return err
}

// end gives the connection back if it may be used again, and else closes it.
func (x *exchange) end(whole bool) {
	whole = x.release() && whole // false if the context has closed it
	if x.sending != nil && !x.sending.complete() {
		whole = false
	}
	if !whole || x.c.br.Buffered() > 0 {
		_ = x.c.Close()
		return
	}
	x.t.idle.put(x.c, time.Now())
}

func hasBody(req *http.Request) bool { return req.Body != nil && req.Body != http.NoBody }

func closeBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close()
	}
}

// An answerBody gives the connection back at its end.
type answerBody struct {
	io.ReadCloser
	x     *exchange
	keep  bool // the app keeps the connection too
	ended bool
}

// Read reads the app's answer. At its end, or when it fails, the connection is
// no longer the exchange's.
func (b *answerBody) Read(p []byte) (int, error) {
	if b.ended {
		return 0, io.EOF
	}
	n, err := b.ReadCloser.Read(p)
	if err == nil {
		return n, nil
	}
	if err != io.EOF && b.x.req.Context().Err() != nil {
		err = b.x.req.Context().Err()
	}
	b.end(err == io.EOF)
	return n, err
}

// Close ends the exchange, also before the end of the answer: then the
// connection is closed.
func (b *answerBody) Close() error {
	b.end(false)
	return nil
}

func (b *answerBody) end(whole bool) {
	if !b.ended {
		b.ended = true
		b.x.end(whole && b.keep)
	}
}
