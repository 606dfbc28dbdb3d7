package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

// A Line is a connection to the app lent to someone who speaks HTTP over it
// himself, one exchange long. It ends with Keep, Close or Adopt.
type Line struct {
	t *Transport
	c *conn
}

// A Question is a request to be sent, whole.
type Question struct {
	// Request is the head and the body.
	Request []byte
	// Answer is where the first bytes of the answer go.
	Answer []byte
	// Again says that the request may be sent twice.
	Again bool
	// Now is the time, more or less.
	Now time.Time
	// Glance is how long to wait for the first byte, at least; at most it is
	// twice as long.
	Glance time.Duration
	// Limit is until when the request must have been taken, at the latest; the
	// Transport's HeaderTimeout holds as well. Zero: no other.
	Limit time.Time
}

// limit is until when the app must have taken the request; zero: for ever.
func (q *Question) limit(timeout time.Duration) time.Time {
	if timeout > 0 && (q.Limit.IsZero() || q.Now.Add(timeout).Before(q.Limit)) {
		return q.Now.Add(timeout)
	}
	return q.Limit
}

// Ask sends a request and reads the first bytes of the answer. It returns
// os.ErrDeadlineExceeded with a Line if there are none after q.Glance: Read goes on
// waiting. All other errors are those of Exchange, without a Line, and as there a
// request is sent again if it may be, once and on a new connection.
//
// On a kept connection it is one wait and three system calls, because the read that
// finds nothing also tells that the connection can still be used.
func (t *Transport) Ask(ctx context.Context, q *Question) (*Line, int, error) {
	for fresh := false; ; {
		c, err := t.get(ctx, q.Now, fresh)
		if err != nil && fresh { // it was sent on the other
			err = fmt.Errorf("%w, and then: %w", ErrSilent, err)
		}
		if err != nil {
			return nil, 0, err
		}
		c.limit = q.limit(t.cfg.HeaderTimeout)
		n, err := c.inquire(q)
		switch {
		case n > 0 || errors.Is(err, os.ErrDeadlineExceeded):
			return c.lend(t), n, err
		case errors.Is(err, errUnsent):
		case !c.kept || !q.Again || ctx.Err() != nil:
			_ = c.Close()
			return nil, 0, fmt.Errorf("%w: %w", ErrSilent, err)
		default:
			fresh = true
		}
		_ = c.Close()
	}
}

// get takes a kept connection, without a look at it, or makes a new one.
func (t *Transport) get(ctx context.Context, now time.Time, fresh bool) (*conn, error) {
	for !fresh {
		c := t.idle.pop()
		if c == nil {
			if c = t.spare(ctx); c != nil {
				return c, nil
			}
			break
		}
		if t.cfg.IdleTimeout == 0 || now.Sub(c.since) < t.cfg.IdleTimeout {
			return c, nil
		}
		_ = c.Close()
	}
	return t.dial(ctx)
}

// lend makes no garbage: a connection has one Line for all its life.
func (c *conn) lend(t *Transport) *Line {
	if c.line == nil {
		c.line = &Line{t: t, c: c}
	}
	return c.line
}

// errUnsent reports that a kept connection could not be used, and was not.
var errUnsent = errors.New("upstream: the app had ended a kept connection, or spoken on it")

// inquire asks on one connection.
func (c *conn) inquire(q *Question) (int, error) {
	c.budget, c.inBody = -1, false
	c.glance(q.Now, q.Glance)
	n, err := c.ask(q.Request, q.Answer, q.Again)
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

// glance sets the read deadline to a moment d to 2d away. It moves it only if it has to.
func (c *conn) glance(now time.Time, d time.Duration) {
	if left := c.until.Sub(now); left < d || left > 2*d {
		c.until = now.Add(2 * d)
		_ = c.SetReadDeadline(c.until)
	}
}

// A quiet connection knows whether the peer has said or ended anything that was not
// read; with look it asks the kernel.
type quiet interface{ Quiet(look bool) bool }

// askAny is ask by means of any connection. A request that cannot be sent again is
// not sent without a look.
func (c *conn) askAny(request, answer []byte, again bool) (int, error) {
	if q, ok := c.Conn.(quiet); ok && c.kept && !q.Quiet(!again) {
		return 0, errUnsent
	}
	return c.askSlowly(request, answer)
}

// askSlowly writes and reads.
func (c *conn) askSlowly(request, answer []byte) (int, error) {
	if err := c.push(request); err != nil {
		return 0, err
	}
	return c.Conn.Read(answer)
}

// errStuck reports that the app did not take the request in time. It is no
// os.ErrDeadlineExceeded, because there is nothing to wait for any more.
var errStuck error = stuckError{}

type stuckError struct{}

func (stuckError) Error() string { return "upstream: the app did not take the request in time" }

// Timeout says what net.Error's does.
func (stuckError) Timeout() bool { return true }

// push writes what the socket does not take at once.
func (c *conn) push(request []byte) error {
	if c.limit.IsZero() {
		_, err := c.Conn.Write(request)
		return err
	}
	_ = c.SetWriteDeadline(c.limit)
	_, err := c.Conn.Write(request)
	_ = c.SetWriteDeadline(time.Time{})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errStuck
	}
	return err
}

// Glance makes Read give up after d, or up to twice as long.
func (l *Line) Glance(now time.Time, d time.Duration) { l.c.glance(now, d) }

// Await makes Read wait until a time; the zero time is for ever.
func (l *Line) Await(until time.Time) {
	l.c.until = until
	_ = l.c.SetReadDeadline(until)
}

// Read reads from the app.
func (l *Line) Read(p []byte) (int, error) { return l.c.Conn.Read(p) }

// Keep gives the connection back: both messages have ended, and nothing came
// after the answer. It has been idle since now, which is the time, more or less.
func (l *Line) Keep(now time.Time) { l.t.idle.put(l.c, now) }

// Close closes the connection. It may be called by another goroutine than the
// one that reads, which then fails, and more than once.
func (l *Line) Close() { _ = l.c.Close() }

// Move leaves the connection to another Transport for the rest of its life, in the
// form that change gives it. If that fails the Line has ended.
func (l *Line) Move(to *Transport, change func(net.Conn) (net.Conn, error)) (*Line, error) {
	nc, err := change(l.c.Conn)
	if err != nil {
		l.Close()
		return nil, err
	}
	c := newConn(nc, to.cfg.BodyTimeout)
	c.kept = l.c.kept
	return c.lend(to), nil
}

// Timeouts are those of the Transport: of the head of an answer, and of silence
// within one. Zero is none.
func (l *Line) Timeouts() (head, body time.Duration) {
	return l.t.cfg.HeaderTimeout, l.t.cfg.BodyTimeout
}

// Adopt goes on with an exchange that was begun by Ask, as Exchange does: early is
// what has come of the answer to req, whose body, if it had one, has been sent. req
// itself must have none. The Line has ended.
func (l *Line) Adopt(req *http.Request, early []byte, inform func(code int, fields http.Header) error) (*http.Response, error) {
	c := l.c
	c.early, c.until = early, time.Time{}
	x := &exchange{t: l.t, c: c, req: req, inform: inform}
	x.release = context.AfterFunc(req.Context(), func() { _ = c.Close() })
	x.awaitHead()
	res, err := x.receive()
	if err == nil {
		return res, nil
	}
	x.end(false)
	return nil, x.explain(nil, err)
}
