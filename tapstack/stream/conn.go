package stream

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// A Conn is one end of a stream. AF_VSOCK can end one direction, or both at once,
// but it has no reset: its reader sees the end of the stream either way. So both
// ends keep to this order, and can tell one from the other (WIRE.md, section 11.3):
//
//	whole    CloseWrite, and Close only once the peer has ended its direction too
//	reset    Close at once
//
//	          CloseWrite              peer ends its direction, Close
//	open ────────────────► half-open ─────────────────────────────────► ended
//	  │    Close, or Reset     │ Close: what the peer still sends is lost   ▲
//	  └────────────────────────┴────────────────────────────────────────────┘
//
// It is a net.Conn with CloseWrite, CloseRead, Reset and SyscallConn, and its
// remote address is the VSOCK peer's. No write to the socket is larger than WriteMax.
//
// The connection below can be taken to an event loop and back (Inner, Move), which
// changes none of this; meanwhile there is neither CloseRead nor SyscallConn.
type Conn struct {
	below    atomic.Pointer[net.Conn] // others ask it while it moves
	writeMax int
	ended    atomic.Bool // our direction has its end
}

// errNoHalfClose reports a connection that no Transport made.
var errNoHalfClose = errors.New("stream: the connection has no half-close")

// New returns the stream on a connection that a vsockconn.Transport made. It owns
// the connection.
func New(c net.Conn) *Conn {
	s := &Conn{}
	if l, ok := c.(interface{ WriteMax() int }); ok {
		s.writeMax = l.WriteMax()
	}
	s.Move(c)
	return s
}

// Inner is the connection below.
func (c *Conn) Inner() net.Conn { return *c.below.Load() }

// Move puts another connection on the same socket below.
func (c *Conn) Move(to net.Conn) { c.below.Store(&to) }

// Read reads what the peer sent. It returns io.EOF only if the peer ended its
// direction in order, and syscall.ECONNRESET if it gave up the whole stream.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.Inner().Read(b)
	if err == io.EOF {
		if reset := c.AtEOF(); reset != nil {
			err = reset
		}
	}
	return n, err
}

// Write writes to the peer.
func (c *Conn) Write(b []byte) (n int, err error) {
	below := c.Inner()
	for ; c.writeMax > 0 && len(b)-n > c.writeMax; n += c.writeMax {
		if some, err := below.Write(b[n : n+c.writeMax]); err != nil {
			return n + some, err
		}
	}
	some, err := below.Write(b[n:])
	return n + some, err
}

// AtEOF says what the end of the stream means to a reader who met it on the
// socket itself: nil, or syscall.ECONNRESET.
func (c *Conn) AtEOF() error {
	if c.ended.Load() {
		return nil // we ended first; then the peer may close
	}
	// Nothing is sent: it fails if the peer takes nothing any more, which is
	// before our own end only so if it gave up.
	if _, err := c.Inner().Write(nil); err != nil {
		return &net.OpError{Op: "read", Net: "vsock", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: syscall.ECONNRESET}
	}
	return nil
}

// CloseWrite tells the peer that nothing follows.
func (c *Conn) CloseWrite() error {
	half, ok := c.Inner().(interface{ CloseWrite() error })
	if !ok {
		return errNoHalfClose
	}
	c.ended.Store(true)
	return half.CloseWrite()
}

// CloseRead refuses what the peer still sends.
func (c *Conn) CloseRead() error {
	half, ok := c.Inner().(interface{ CloseRead() error })
	if !ok {
		return errNoHalfClose
	}
	return half.CloseRead()
}

// Reset closes the stream such that the peer's reads fail.
func (c *Conn) Reset() error { return c.Close() }

// SyscallConn is the socket. Who reads it has to ask AtEOF at its end.
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	s, ok := c.Inner().(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return s.SyscallConn()
}

// Socketed says that a duplicate of the socket can stand for the connection, if it
// keeps to the order above.
func (c *Conn) Socketed() {}

// WriteMax is the most bytes that one write to the socket may have, or 0. Who writes
// past Write has to keep to it.
func (c *Conn) WriteMax() int { return c.writeMax }

// Unused reports whether the peer has neither sent nor ended anything, without
// waiting: a stream that was kept ready may have been closed meanwhile.
func (c *Conn) Unused() bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	unused := false
	err = raw.Control(func(fd uintptr) { unused = nothingYet(int(fd)) })
	return err == nil && unused
}

// Close closes the connection below.
func (c *Conn) Close() error { return c.Inner().Close() }

// LocalAddr is ours.
func (c *Conn) LocalAddr() net.Addr { return c.Inner().LocalAddr() }

// RemoteAddr is the VSOCK peer's.
func (c *Conn) RemoteAddr() net.Addr { return c.Inner().RemoteAddr() }

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error { return c.Inner().SetDeadline(t) }

// SetReadDeadline sets when a Read has waited too long.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.Inner().SetReadDeadline(t) }

// SetWriteDeadline sets when a Write has waited too long.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.Inner().SetWriteDeadline(t) }
