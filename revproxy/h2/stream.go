package h2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/net/http2/hpack"
)

var errLength = errors.New("the body is not as long as its Content-Length")

// A stream is a request and its answer. Its connection's mutex guards it.
type stream struct {
	conn     *conn
	id       uint32
	ctx      context.Context
	cancel   context.CancelFunc
	handler  http.Handler
	response *response
	gone     bool // it has left the connection's table
	err      error

	// From the client.
	body       *body // nil: the request has none
	declared   int64 // Content-Length; -1: none
	received   int64
	in         inflow
	remoteDone bool
	announced  http.Header // trailers, as the request has them
	trailers   http.Header // as they came

	// To the client. See sender.
	queue    []*chunk
	window   int64
	fin      fin
	finCode  code                // of finReset
	trailing []hpack.HeaderField // behind the last chunk
	listed   bool                // in the ring
	behind   *stream             // in the ring
	room     sync.Cond           // for one more chunk

	late [2]*time.Timer // read, write
}

// A fin is how an answer ends behind its last chunk.
type fin int

const (
	finNone fin = iota
	finEnd
	finReset
)

func newStream(c *conn, id uint32) *stream {
	st := &stream{conn: c, id: id, declared: -1, window: c.initial, in: newInflow(c.server.stream)}
	st.room.L = &c.mu
	return st
}

func contextOf(base context.Context) (context.Context, context.CancelFunc) {
	return context.WithCancel(base)
}

// run runs the handler, and then those of streams that have waited for it to end.
func (st *stream) run() {
	c := st.conn
	for st != nil {
		st.serve()
		c.mu.Lock()
		st = c.nextWaiting()
		c.mu.Unlock()
	}
}

// nextWaiting takes a stream that waits for a handler and was not reset meanwhile.
func (c *conn) nextWaiting() *stream {
	for len(c.waiting) > 0 {
		st := c.waiting[0]
		c.waiting[0], c.waiting = nil, c.waiting[1:]
		if !st.gone {
			return st
		}
		if st.body != nil {
			c.mu.Unlock()
			_ = st.body.Close()
			c.mu.Lock()
		}
	}
	c.handlers--
	return nil
}

// serve runs the handler.
func (st *stream) serve() {
	c, w := st.conn, st.response
	returned := false
	defer func() {
		if !returned {
			if v := recover(); v != nil && v != http.ErrAbortHandler { //nolint:errorlint // as net/http compares it
				c.server.logf("h2: panic serving %s: %v\n%s", c.remote, v, debug.Stack())
			}
			w.end(finReset)
		}
		if st.body != nil {
			_ = st.body.Close() // what has come of it is given back to the window
		}
		if f := w.req.MultipartForm; f != nil {
			_ = f.RemoveAll()
		}
		st.cancel()
	}()
	st.handler.ServeHTTP(w, w.req)
	w.end(finEnd)
	returned = true
}

// onTrailers ends the request's body.
func (st *stream) onTrailers(l *fieldList) error {
	if st.remoteDone {
		return streamError{id: st.id, code: codeClosed}
	}
	if !l.ends || l.pseudo > 0 || l.truncated {
		return streamError{id: st.id, code: codeProtocol}
	}
	for _, field := range l.fields {
		name := st.conn.names.canonical(field.Name)
		if !mayTrail(name) {
			return streamError{id: st.id, code: codeProtocol}
		}
		if _, ok := st.announced[name]; ok {
			if st.trailers == nil {
				st.trailers = make(http.Header)
			}
			st.trailers[name] = append(st.trailers[name], field.Value)
		}
	}
	return st.endRemote()
}

// endRemote ends the request.
func (st *stream) endRemote() error {
	if st.declared >= 0 && st.received != st.declared {
		return streamError{id: st.id, code: codeProtocol, cause: errLength}
	}
	st.remoteDone = true
	st.body.end(io.EOF, st.copyTrailers)
	return nil
}

// copyTrailers is for the handler's goroutine, which looks at them after this.
func (st *stream) copyTrailers() {
	maps.Copy(st.announced, st.trailers)
}

// drop ends a stream, whatever its state: nothing of it is sent or received any
// more. c.mu is held.
func (c *conn) drop(st *stream, err error) {
	if st.gone {
		return
	}
	st.gone, st.err = true, err
	delete(c.streams, st.id)
	for _, k := range st.queue {
		c.takeBack(k)
	}
	st.queue = nil
	for _, t := range st.late {
		if t != nil {
			t.Stop()
		}
	}
	if st.body != nil {
		st.body.end(err, nil)
	}
	if st.fin == finNone { // the handler still runs
		st.cancel()
	}
	st.room.Broadcast()
	if len(c.streams) == 0 && !c.closed {
		c.idle = time.Since(c.started)
		c.state(http.StateIdle)
		c.turn.Signal() // to the writer
		c.leave()
		c.arm()
	}
}

// reset ends a stream, which may be long gone, and says so.
func (c *conn) reset(id uint32, code code, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.dying {
		return
	}
	if st := c.streams[id]; st != nil {
		c.drop(st, err)
	}
	c.out = appendReset(c.out, id, code)
	c.push(false)
	if c.inVain() != nil {
		c.farewell(codeCalm)
	}
}

// consumed opens the windows for what the handler has taken of a body; without a
// stream, that of the connection alone.
func (c *conn) consumed(st *stream, n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.returned(nil, n)
	if st != nil {
		c.returned(st, n)
	}
}

// returned opens the window of a stream, or of the connection, by n bytes. c.mu is held.
func (c *conn) returned(st *stream, n int64) {
	id, window := uint32(0), &c.in
	if st != nil {
		if st.gone || st.remoteDone {
			return
		}
		id, window = st.id, &st.in
	}
	if more := window.give(n); more > 0 && !c.closed && !c.dying {
		c.out = appendWindowUpdate(c.out, id, more)
		c.push(false)
	}
}

// setDeadline has a stream fail at a time: reading its body, or all of it.
func (st *stream) setDeadline(which int, at time.Time, expire func()) error {
	left := time.Until(at)
	if !at.IsZero() && left <= 0 {
		expire()
		return nil
	}
	st.conn.mu.Lock()
	defer st.conn.mu.Unlock()
	t := &st.late[which]
	switch {
	case *t == nil && !at.IsZero() && !st.gone:
		*t = time.AfterFunc(left, expire)
	case *t == nil:
	case at.IsZero() || st.gone:
		(*t).Stop()
	default:
		(*t).Reset(left)
	}
	return nil
}

func (st *stream) tooLateToRead() {
	if st.body != nil {
		st.body.end(fmt.Errorf("h2: reading the request's body: %w", os.ErrDeadlineExceeded), nil)
	}
}

func (st *stream) tooLateToWrite() {
	st.conn.reset(st.id, codeInternal, fmt.Errorf("h2: writing the answer: %w", os.ErrDeadlineExceeded))
}
