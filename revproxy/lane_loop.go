package revproxy

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/corridor-enclave/corridor/revproxy/eventloop"
	"github.com/corridor-enclave/corridor/revproxy/upstream"
)

// loops are the event loops of a lane. Connections that are sockets are served there,
// by the same code: its waits give way to others. Each loop keeps connections to
// the apps of its own.
type loops struct {
	engine eventloop.Engine
	lines  [][]*upstream.Transport // by loop and member; none: goroutines serve
}

// open starts the loops, if the lane's connections can be served there.
func (l *Lane) open() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cfg.Off || l.cfg.Goroutines || l.proxy.config.Dial != nil || l.loops.lines != nil {
		return
	}
	n, err := l.loops.engine.Open(l.cfg.Loops)
	if err != nil {
		if !errors.Is(err, errors.ErrUnsupported) {
			l.proxy.config.Log.Warn("no event loops: a goroutine serves each connection", "part", "lane", "error", err)
		}
		return
	}
	for range n {
		var lines []*upstream.Transport
		for _, m := range l.proxy.apps.members {
			lines = append(lines, upstream.New(upstreamConfig(l.proxy.config, l.dialFrom(m), l.spareFrom(m))))
		}
		l.loops.lines = append(l.loops.lines, lines)
	}
	l.proxy.lanes.add(l)
}

// dialFrom connects to an app for a task: the connecting waits elsewhere.
func (l *Lane) dialFrom(m *member) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (conn net.Conn, err error) {
		x, ok := ctx.(*exchange)
		if !ok {
			return nil, errors.ErrUnsupported // only tasks ask
		}
		x.task.Do(func() { conn, err = m.dial(ctx) })
		if err != nil {
			return nil, err
		}
		return l.take(x.task, conn)
	}
}

// spareFrom takes over a connection that others have kept.
func (l *Lane) spareFrom(m *member) func(context.Context) net.Conn {
	return func(ctx context.Context) net.Conn {
		x, ok := ctx.(*exchange)
		if !ok {
			return nil // only tasks ask
		}
		conn := m.lines.Give()
		if conn == nil {
			conn = l.loops.spare(m) // of another loop
		}
		if conn == nil {
			return nil
		}
		socket, err := l.take(x.task, conn)
		if err != nil {
			return nil
		}
		return socket
	}
}

// take brings a connection to an app to a task's loop, or closes it.
func (l *Lane) take(t *eventloop.Task, conn net.Conn) (net.Conn, error) {
	socket, err := t.Take(conn)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return socket, nil
}

// idle is how many unused connections to an app the loops have.
func (l *loops) idle(m *member) (n int) {
	for _, lines := range l.lines {
		n += lines[m.index].Idle()
	}
	return n
}

// spare gives away a connection to an app that a loop has and does not need.
func (l *loops) spare(m *member) net.Conn {
	for _, lines := range l.lines {
		if c := lines[m.index].Give(); c != nil {
			if c, err := offLoop(c); err == nil {
				return c
			}
		}
	}
	return nil
}

// close ends the loops, which have nothing to do any more.
func (l *loops) close() {
	for _, lines := range l.lines {
		for _, t := range lines {
			t.CloseIdleConnections()
		}
	}
	l.engine.Close()
}

// A Moving is a connection around another one, for which another on the same socket
// can be put there: so it comes to an event loop, and back. Others may be between the
// two. Whoever reads and writes calls Move, between two calls, and not while anybody
// calls Close.
type Moving interface {
	net.Conn
	// Inner is the connection that is next to it.
	Inner() net.Conn
	// Move puts a connection in the place of the innermost; it has no deadlines yet. A
	// Moving that was closed before, and whose Close does nothing any more, closes it.
	Move(to net.Conn)
}

// innermost is the connection in all that is around it.
func innermost(c net.Conn) net.Conn {
	for {
		m, ok := c.(Moving)
		if !ok {
			return c
		}
		c = m.Inner()
	}
}

// enter has a connection served on a loop. It reports whether it will be.
func (c *laneConn) enter() bool {
	l := c.lane
	if len(l.loops.lines) == 0 {
		return false
	}
	if !eventloop.Takes(innermost(c.accepted)) {
		return false
	}
	l.running.Add(1)
	if l.loops.engine.Go(c.serveOnLoop) {
		return true
	}
	l.running.Done()
	return false
}

func (c *laneConn) serveOnLoop(t *eventloop.Task) {
	defer c.lane.running.Done()
	socket, err := t.Take(innermost(c.accepted))
	if err != nil {
		_ = c.accepted.Close()
		c.lane.forget(c)
		return
	}
	t.Mind(socket, false)
	c.task, c.socket, c.raw = t, socket, nil
	c.exchange.x.task = t
	if !c.replace(socket) {
		_ = c.accepted.Close()
		c.lane.forget(c)
		return
	}
	c.serve()
}

// replace puts another connection in the place of the innermost. It reports whether
// nobody has ended the connection meanwhile.
func (c *laneConn) replace(conn net.Conn) bool {
	c.lane.mu.Lock() // others may close it, with the lock
	defer c.lane.mu.Unlock()
	switch m, around := c.accepted.(Moving); {
	case around:
		m.Move(conn)
	case c.tls != nil:
		c.accepted, c.under.Conn = conn, conn
	default:
		c.accepted, c.conn = conn, conn
	}
	return c.state.Load() != stateEnded
}

// leave takes a connection from its loop, if it is on one, for the server.
func (c *laneConn) leave() error {
	if c.task == nil {
		return nil
	}
	conn, err := c.socket.Return()
	if err != nil {
		return err
	}
	c.task, c.exchange.x.task = nil, nil
	c.replace(conn)
	return nil
}

// offLoop is a connection to an app as others can use it.
func offLoop(c net.Conn) (net.Conn, error) {
	if socket, ok := c.(*eventloop.Conn); ok {
		return socket.Return()
	}
	return c, nil
}

// linesTo are the connections to an app that the exchange may use.
func (e *laneExchange) linesTo(m *member) *upstream.Transport {
	if e.task == nil {
		return m.lines
	}
	return e.lane.loops.lines[e.task.Loop().Index()][m.index]
}

// admit waits for room, elsewhere if there is none at once.
func (e *laneExchange) admit() (failure, bool) {
	a := e.lane.proxy.admission
	if e.task == nil {
		return a.enter(e.lane.ctx, e.client)
	}
	f, v := a.tries(e.client)
	if v == mustWait {
		return e.awaitRoom()
	}
	return f, v == mayPass
}

// awaitRoom is apart from admit, whose results would be garbage for its sake.
func (e *laneExchange) awaitRoom() (f failure, ok bool) {
	e.task.Do(func() { f, ok = e.lane.proxy.admission.waits(e.lane.ctx, e.client) })
	return f, ok
}

// sleep waits, and reports whether it could to the end.
func (x *exchange) sleep(d time.Duration) (whole bool) {
	if x.task == nil {
		return sleep(x, d)
	}
	x.task.Do(func() { whole = sleep(x, d) })
	return whole
}

// lanes are the lanes of a proxy, which Run keeps connections ready for.
type lanes struct{ list atomic.Pointer[[]*Lane] }

func (l *lanes) add(lane *Lane) {
	all := append([]*Lane(nil), l.all()...)
	all = append(all, lane)
	l.list.Store(&all)
}

// spare gives away a connection to an app that a lane has and does not need.
func (l *lanes) spare(m *member) net.Conn {
	for _, lane := range l.all() {
		if c := lane.loops.spare(m); c != nil {
			return c
		}
	}
	return nil
}

func (l *lanes) all() []*Lane {
	if list := l.list.Load(); list != nil {
		return *list
	}
	return nil
}
