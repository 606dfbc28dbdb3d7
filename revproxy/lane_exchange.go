package revproxy

import (
	"bytes"
	"context"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/corridor-enclave/corridor/revproxy/head"
	"github.com/corridor-enclave/corridor/revproxy/upstream"
)

// glance is how long an answer may take until the client is watched.
const glance = 20 * time.Millisecond

// An outcome is what becomes of a client's connection after a request.
type outcome uint8

const (
	goesOn         outcome = iota // the next request may come
	last                          // it is closed, after what was sent
	broken                        // it is closed at once: the client must not take the answer for whole
	passedOn                      // the server gets it, and nothing has been done
	begunElsewhere                // the server gets it, with the exchange's begun answer
)

// A laneExchange is the request under way on a connection. There is one for each,
// used again and again.
type laneExchange struct {
	*laneConn
	x     exchange // what the Proxy's rules look at
	id    [26]byte // X-Request-ID
	begin time.Time
	limit time.Time // of all of it; zero: none

	ask   func(*member) error // asks one app, once
	line  *upstream.Line      // with the app; nil: none
	got   int                 // how much of b.answer is filled
	begun *begunAnswer        // for the server
}

func (e *laneExchange) init(c *laneConn) {
	e.laneConn = c
	e.ask = e.askApp
}

// run carries out the request in b.in[:size].
func (e *laneExchange) run(size int) outcome {
	l, p := e.lane, e.lane.proxy
	req := &e.b.req
	if !e.plain(req) || !l.cfg.Enter(req.Target) {
		return passedOn
	}
	e.reset()
	defer func() { l.cfg.Leave(time.Since(e.begin)) }()
	seen := p.sees(&e.x, e.begin)
	p.requests.Add(1)
	l.taken.Add(1)
	if f, ok := e.admit(); !ok {
		result := e.refuse(f)
		if seen {
			e.tell()
		}
		return result
	}
	e.x.sight.enters()
	result := broken
	defer func() { // also if something panics
		if result == begunElsewhere {
			return // leaves there
		}
		e.drop()
		e.x.move(nil)
		p.admission.leave(e.client)
		if seen {
			e.tell()
		}
	}()
	e.compose(size)
	result = e.carry()
	e.unwatch()
	return result
}

// tell tells of a request that is over.
func (e *laneExchange) tell() {
	r := e.stand()
	e.lane.proxy.tell(&e.x, r, true)
}

// plain reports whether the Proxy has nothing against the request. If it has, the
// ordinary way says what.
func (e *laneExchange) plain(req *head.Request) bool {
	p := e.lane.proxy
	c := &p.config
	if len(req.Target) > c.MaxTargetBytes || len(req.All()) > c.MaxFields || c.MaxBodyBytes > 0 && (req.Length > c.MaxBodyBytes || req.Length < 0 && int64(len(e.b.body)) > c.MaxBodyBytes) {
		return false
	}
	if p.suspicious() && p.quarantine.suspected(p.quarantine.keyOf(string(req.Method), string(req.Host), string(req.Target), req.Length)) {
		return false // it is looked at there
	}
	if len(p.hosts) > 0 && string(req.Host) != e.host {
		host := string(req.Host)
		if !p.hosts[hostName(host)] {
			return false
		}
		e.host = host
	}
	for _, f := range req.All() {
		if f.Kind == head.Via && bytes.Contains(f.Value(e.b.in[:]), []byte(p.mark)) {
			return false
		}
	}
	return true
}

// ids spells random numbers as crypto/rand.Text does.
var ids = base32.StdEncoding.WithPadding(base32.NoPadding)

func (e *laneExchange) reset() {
	e.begin, e.limit = e.now(), time.Time{}
	if t := e.lane.proxy.config.RequestTimeout; t > 0 {
		e.limit = e.begin.Add(t)
	}
	var random [16]byte // from the runtime's generator, whose seed and method are cryptographic
	binary.NativeEndian.PutUint64(random[:], rand.Uint64())
	binary.NativeEndian.PutUint64(random[8:], rand.Uint64())
	ids.Encode(e.id[:], random[:])
	e.x.Context, e.x.in, e.x.id = e.lane.ctx, nil, ""
	e.x.sight = sighting{}
	e.begun, e.watching = nil, nil
}

// compose writes the request to the app into b.out.
func (e *laneExchange) compose(size int) {
	in, req, p := e.b.in[:size], &e.b.req, e.lane.proxy
	out := append(e.b.out[:0], req.Method...)
	out = append(append(out, ' '), req.Target...)
	out = append(out, " HTTP/1.1\r\n"...)
	out = appendFields(out, in, req.All(), func(k head.Kind) bool { return !k.OfHop() && k != head.Origin })
	switch {
	case req.Length < 0:
		out = append(out, "Transfer-Encoding: chunked\r\n"...)
	case !req.Declared && (string(req.Method) == http.MethodPost || string(req.Method) == http.MethodPut || string(req.Method) == http.MethodPatch):
		out = append(out, "Content-Length: 0\r\n"...)
	}
	out = append(out, e.constant...)
	out = append(e.appendForwarding(out, req.Host), "\r\n"...)
	if req.Length < 0 {
		e.b.out = append(out, e.b.body...)
	} else {
		e.b.out = append(out, in[req.Size:]...)
	}
	e.x.again, e.x.repeats = req.Idempotent(), 0
	if e.x.again && (p.config.Retries != 1 || len(p.config.NonIdempotent) > 0) {
		e.x.mayRepeat(p, string(req.Method), string(req.Target), true)
	}
}

// appendForwarding appends what the app is told that is not the same for each request
// of the connection.
func (e *laneExchange) appendForwarding(out, host []byte) []byte {
	tell := e.lane.proxy.fields
	if tell.has(ForwardedHost) {
		out = append(append(append(out, "X-Forwarded-Host: "...), host...), "\r\n"...)
	}
	if tell.has(Forwarded) {
		out = append(append(append(append(out, "Forwarded: "...), e.before...), `host="`...), host...)
		out = append(append(append(out, `";`...), e.behind...), "\r\n"...)
	}
	if tell.has(RequestID) {
		out = append(append(append(out, "X-Request-Id: "...), e.id[:]...), "\r\n"...)
	}
	return out
}

// appendFields appends the fields of some kinds as they are in from, in lines of
// one form.
func appendFields(to, from []byte, fields []head.Field, wanted func(head.Kind) bool) []byte {
	for _, f := range fields {
		if !wanted(f.Kind) {
			continue
		}
		line, canonical := f.Line(from)
		if canonical {
			to = append(to, line...)
			continue
		}
		to = append(append(to, f.Name(from)...), ": "...)
		to = append(append(to, f.Value(from)...), "\r\n"...)
	}
	return to
}

// carry has the app asked, and passes the answer on.
func (e *laneExchange) carry() outcome {
	err := e.lane.proxy.apps.reach(&e.x, e.now(), e.ask)
	if err == nil {
		return e.deliver()
	}
	e.drop()
	return e.fail(err)
}

// askApp asks one app and waits for the first bytes of its answer.
func (e *laneExchange) askApp(m *member) (err error) {
	q := upstream.Question{Request: e.b.out, Answer: e.b.answer[:], Again: e.x.again, Now: e.begin, Glance: glance, Limit: e.limit}
	if e.line != nil { // of an app that did not answer
		e.unwatch()
		e.drop()
		if e.gone() {
			return http.ErrAbortHandler
		}
	}
	e.line, e.got, err = e.linesTo(m).Ask(&e.x, &q)
	if errors.Is(err, os.ErrDeadlineExceeded) && e.line != nil {
		e.watch()
		e.line.Await(e.until(e.begin, e.lane.proxy.config.ResponseHeaderTimeout))
		e.got, err = e.line.Read(e.b.answer[:])
	}
	switch {
	case e.got > 0:
		return nil
	case e.line == nil || e.gone() || errors.Is(err, os.ErrDeadlineExceeded):
		return err
	}
	return fmt.Errorf("%w: %w", upstream.ErrSilent, orEOF(err))
}

// until is when a wait that begins now has lasted too long.
func (e *laneExchange) until(now time.Time, timeout time.Duration) time.Time {
	t := e.limit
	if timeout > 0 && (t.IsZero() || now.Add(timeout).Before(t)) {
		t = now.Add(timeout)
	}
	return t
}

// hear reads more from the app. After a moment of silence the client is watched.
func (e *laneExchange) hear(p []byte, timeout time.Duration) (int, error) {
	now := e.now()
	if !e.limit.IsZero() && now.After(e.limit) {
		return 0, os.ErrDeadlineExceeded // an app that never pauses meets no deadline
	}
	if e.watching == nil {
		e.line.Glance(now, glance)
		n, err := e.line.Read(p)
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		e.watch()
	}
	e.line.Await(e.until(now, timeout))
	return e.line.Read(p)
}

// drop closes the connection to the app, if there is one.
func (e *laneExchange) drop() {
	if e.line != nil {
		e.line.Close()
		e.line = nil
	}
}

// stand makes a request for the rules that want one.
func (e *laneExchange) stand() *http.Request {
	e.x.id = string(e.id[:])
	if e.gone() {
		e.x.Context = goneContext()
	}
	r := &http.Request{
		Method: string(e.b.req.Method), RequestURI: string(e.b.req.Target), Host: string(e.b.req.Host),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, URL: &url.URL{},
		ContentLength: e.b.req.Length,
	}
	if u, err := url.ParseRequestURI(r.RequestURI); err == nil {
		r.URL = u
	}
	if a := e.accepted.RemoteAddr(); a != nil {
		r.RemoteAddr = a.String()
	}
	e.x.in = r
	return r
}

// goneContext is the context of a request whose client has gone.
func goneContext() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// refuse answers with a failure that is not the app's.
func (e *laneExchange) refuse(f failure) outcome {
	r := e.stand()
	return e.answered(func(w http.ResponseWriter) { e.lane.proxy.answer(w, r, &e.x, f, nil) })
}

// fail answers a request that could not be carried out.
func (e *laneExchange) fail(err error) outcome {
	e.unwatch()
	r := e.stand()
	return e.answered(func(w http.ResponseWriter) { e.lane.proxy.fail(w, r, &e.x, err) })
}
