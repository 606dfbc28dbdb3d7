package front

import (
	"errors"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/corridor-enclave/corridor/revproxy"
)

// guardWrites makes writes on accepted connections fail once the client has
// taken nothing of one for the timeout, or nearly so. http.Server's WriteTimeout
// cannot: it would bound the whole answer.
func guardWrites(l net.Listener, timeout time.Duration) net.Listener {
	return &guardedListener{Listener: l, timeout: timeout}
}

type guardedListener struct {
	net.Listener
	timeout time.Duration
}

func (l *guardedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err // the server asks whether it is temporary
	}
	return &guardedConn{Conn: c, timeout: l.timeout, start: time.Now()}, nil
}

// A guardedConn moves its write deadline along with the writes, until its owner
// sets one itself.
type guardedConn struct {
	net.Conn
	timeout time.Duration
	start   time.Time
	armed   atomic.Int64 // nanoseconds after start; 0 is never
	owned   atomic.Bool  // the owner's deadline stands
}

func (c *guardedConn) Write(b []byte) (int, error) {
	now := int64(time.Since(c.start)) + 1
	armed := c.armed.Load()
	if (armed == 0 || now-armed > int64(c.timeout/8)) && !c.owned.Load() {
		c.armed.Store(now)
		if err := c.Conn.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
			return 0, err // the connection's own: it is closed
		}
	}
	return c.Conn.Write(b)
}

// Inner is the connection that is guarded.
func (c *guardedConn) Inner() net.Conn { return c.Conn }

// Move guards another connection on the same socket, which has no deadline yet.
func (c *guardedConn) Move(to net.Conn) {
	c.Conn = moved(c.Conn, to)
	c.armed.Store(0)
}

// moved is c with another connection on its socket as its innermost, or that one itself.
func moved(c, to net.Conn) net.Conn {
	m, ok := c.(revproxy.Moving)
	if !ok {
		return to
	}
	m.Move(to)
	return c
}

// SyscallConn is for readers that wait without a buffer. Writes past the guard are
// not guarded.
func (c *guardedConn) SyscallConn() (syscall.RawConn, error) { return syscallConn(c.Conn) }

func syscallConn(c net.Conn) (syscall.RawConn, error) {
	if sc, ok := c.(syscall.Conn); ok {
		return sc.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// SetWriteDeadline is the owner's; the zero time hands the deadline back.
func (c *guardedConn) SetWriteDeadline(t time.Time) error {
	c.owned.Store(!t.IsZero())
	c.armed.Store(0)
	return c.Conn.SetWriteDeadline(t)
}

func (c *guardedConn) SetDeadline(t time.Time) error {
	c.owned.Store(!t.IsZero())
	c.armed.Store(0)
	return c.Conn.SetDeadline(t)
}

// CloseWrite ends this direction alone, which http.Server does before it closes,
// so that the client reads the answer before it meets a reset.
func (c *guardedConn) CloseWrite() error { return closeWrite(c.Conn) }

func closeWrite(c net.Conn) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
