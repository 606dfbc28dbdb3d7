package revproxy

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"time"

	"github.com/corridor-enclave/corridor/revproxy/upstream"
)

// A watch reads a client's connection while the app makes it wait, in a goroutine
// of its own. What it reads is the beginning of the next request.
type watch struct {
	ended   chan struct{}
	n       int
	gone    atomic.Bool // the client went away, or closed its half
	release func() bool // takes the lane's hand off the connection to the app
}

// watch begins to watch the client. If it goes away, or the lane is cut, the
// connection to the app is closed, which ends whatever waits for it.
func (e *laneExchange) watch() {
	if e.task != nil {
		e.task.Mind(e.socket, true)
		e.watching = &e.minding
		return
	}
	e.idleUntil = time.Time{}
	_ = e.conn.SetReadDeadline(time.Time{})
	conn, line := e.conn, e.line
	w := &watch{ended: make(chan struct{}), release: context.AfterFunc(e.lane.ctx, line.Close)}
	room := e.b.in[e.n:]
	e.watching = w
	if len(room) == 0 {
		close(w.ended) // it sends and sends: it is there
		return
	}
	go w.read(conn.Read, room, line)
}

func (w *watch) read(read func([]byte) (int, error), room []byte, line *upstream.Line) {
	defer close(w.ended)
	var err error
	w.n, err = read(room)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		w.gone.Store(true)
		line.Close()
	}
}

// unwatch ends a watch. It comes before the line is kept.
func (c *laneConn) unwatch() {
	if c.watching == nil {
		return
	}
	if c.task != nil {
		if c.task.Mind(c.socket, false); !c.socket.Gone() {
			c.watching = nil
		}
		return
	}
	_ = c.conn.SetReadDeadline(time.Unix(1, 0))
	<-c.watching.ended
	c.watching.release()
	_ = c.conn.SetReadDeadline(time.Time{})
	c.n += c.watching.n
	c.watching.n = 0
	if !c.watching.gone.Load() {
		c.watching = nil
	}
	c.idleUntil = time.Time{}
}

// gone reports whether the last watch saw the client go.
func (c *laneConn) gone() bool {
	if c.task != nil {
		return c.watching != nil && c.socket.Gone()
	}
	return c.watching != nil && c.watching.gone.Load()
}
