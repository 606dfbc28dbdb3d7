package stream

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// lingerTimeout is how long a connection that was closed here waits for its
	// peer to end its direction too.
	lingerTimeout = 2 * time.Second
	// lingerBytes bounds what the peer may go on sending.
	lingerBytes = 1 << 20
)

// A Halved is a connection that can end its own direction alone, and that can be
// cut such that its peer notices; a Conn is one.
type Halved interface {
	net.Conn
	CloseWrite() error
	Reset() error
}

// A moving connection is one below which another on the same socket can be put; a Conn
// is one.
type moving interface {
	Inner() net.Conn
	Move(to net.Conn)
}

// A Lingering is a connection whose Close is an end, not a reset, for servers and
// clients such as net/http's, which know Close only and not the order in which a
// stream ends: it ends our direction, and closes the connection when the peer has
// ended its own, or has not for two seconds.
type Lingering struct {
	conn      Halved
	all       *sync.WaitGroup
	closing   atomic.Bool   // Close was called
	closed    chan struct{} // closed with it
	peerEnded atomic.Bool

	// reading holds a token while somebody reads. A Read that waits has to be gone
	// before linger reads, and one that comes later must not wait for linger, which
	// is why this is no mutex.
	reading chan struct{}
}

// Linger returns the connection with a Close that is an end. It owns c. all counts
// those that linger; whoever waits for it must not close any more.
func Linger(c Halved, all *sync.WaitGroup) *Lingering {
	return &Lingering{conn: c, all: all, closed: make(chan struct{}), reading: make(chan struct{}, 1)}
}

// Read reads what the peer sent. After Close it returns net.ErrClosed, also if it
// is waiting.
func (c *Lingering) Read(b []byte) (int, error) {
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	case c.reading <- struct{}{}:
	}
	defer func() { <-c.reading }()
	n, err := c.conn.Read(b)
	switch {
	case err == io.EOF:
		c.peerEnded.Store(true)
	case err != nil && c.closing.Load():
		err = net.ErrClosed
	}
	return n, err
}

// Write writes to the peer.
func (c *Lingering) Write(b []byte) (int, error) {
	if c.closing.Load() {
		return 0, net.ErrClosed
	}
	return c.conn.Write(b)
}

// CloseWrite tells the peer that nothing follows.
func (c *Lingering) CloseWrite() error { return c.conn.CloseWrite() }

// Close ends the connection. It returns at once.
func (c *Lingering) Close() error {
	if c.closing.Swap(true) {
		return net.ErrClosed
	}
	close(c.closed)
	if err := c.conn.CloseWrite(); err != nil || c.peerEnded.Load() {
		return c.conn.Close()
	}
	// Whoever reads or writes now is woken.
	rest, err := offLoop(c.Inner())
	if err != nil {
		return c.conn.Close()
	}
	if err := rest.SetDeadline(time.Unix(1, 0)); err != nil {
		_ = rest.Close()
		return c.conn.Close()
	}
	c.all.Go(func() { c.linger(rest) })
	return nil
}

// offLoop is a connection as goroutines can use it. To the loop that it was on it is
// closed.
func offLoop(c net.Conn) (net.Conn, error) {
	if l, ok := c.(interface{ Return() (net.Conn, error) }); ok {
		return l.Return()
	}
	return c, nil
}

// Reset closes the connection such that the peer's reads fail.
func (c *Lingering) Reset() error {
	if c.closing.Swap(true) {
		return net.ErrClosed
	}
	close(c.closed)
	return c.conn.Reset()
}

// linger drops what the peer still sends, until it ends. It owns rest, which is the
// connection below, or was taken from there.
func (c *Lingering) linger(rest net.Conn) {
	end := func() {
		_ = rest.Close()
		_ = c.conn.Close()
	}
	defer end()
	// A timer and no deadline: the owner may still set one of its own.
	timer := time.AfterFunc(lingerTimeout, end)
	defer timer.Stop()
	c.reading <- struct{}{}
	if rest.SetReadDeadline(time.Time{}) == nil {
		// Neither what comes nor why it ends matters to anybody.
		_, _ = io.Copy(io.Discard, io.LimitReader(rest, lingerBytes))
	}
}

// Inner is the socket, or what is in its place.
func (c *Lingering) Inner() net.Conn {
	if m, ok := c.conn.(moving); ok {
		return m.Inner()
	}
	return c.conn
}

// Move puts another connection on the same socket in the place of Inner, which must be
// below a Conn: on an event loop, or off it. Close takes it off by its
// Return() (net.Conn, error). Whoever reads and writes calls Move, between two calls,
// and nobody Close meanwhile.
func (c *Lingering) Move(to net.Conn) {
	if m, ok := c.conn.(moving); ok {
		m.Move(to)
	}
	if c.closing.Load() {
		_ = to.Close() // it was between the two
	}
}

// SyscallConn is the socket, for those who wait on it without a buffer. Who reads
// it has to ask AtEOF at its end.
func (c *Lingering) SyscallConn() (syscall.RawConn, error) {
	s, ok := c.conn.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return s.SyscallConn()
}

// AtEOF says what the end of the stream means to a reader who met it on the
// socket itself: nil, or syscall.ECONNRESET.
func (c *Lingering) AtEOF() error {
	if s, ok := c.conn.(interface{ AtEOF() error }); ok {
		return s.AtEOF()
	}
	return nil
}

// LocalAddr is the connection's own.
func (c *Lingering) LocalAddr() net.Addr { return c.conn.LocalAddr() }

// RemoteAddr is the connection's own.
func (c *Lingering) RemoteAddr() net.Addr { return c.conn.RemoteAddr() }

// SetDeadline is the connection's own.
func (c *Lingering) SetDeadline(t time.Time) error { return c.conn.SetDeadline(t) }

// SetReadDeadline is the connection's own.
func (c *Lingering) SetReadDeadline(t time.Time) error { return c.conn.SetReadDeadline(t) }

// SetWriteDeadline is the connection's own.
func (c *Lingering) SetWriteDeadline(t time.Time) error { return c.conn.SetWriteDeadline(t) }
