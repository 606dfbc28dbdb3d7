package stream

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
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
// remote address is the VSOCK peer's.
type Conn struct {
	net.Conn
	ended atomic.Bool // our direction has its end
}

// errNoHalfClose reports a connection that no Transport made.
var errNoHalfClose = errors.New("stream: the connection has no half-close")

// New returns the stream on a connection that a vsockconn.Transport made. It owns
// the connection.
func New(c net.Conn) *Conn { return &Conn{Conn: c} }

// Read reads what the peer sent. It returns io.EOF only if the peer ended its
// direction in order, and syscall.ECONNRESET if it gave up the whole stream.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err == io.EOF {
		if reset := c.AtEOF(); reset != nil {
			err = reset
		}
	}
	return n, err
}

// AtEOF says what the end of the stream means to a reader who met it on the
// socket itself: nil, or syscall.ECONNRESET.
func (c *Conn) AtEOF() error {
	if c.ended.Load() {
		return nil // we ended first; then the peer may close
	}
	// Nothing is sent: it fails if the peer takes nothing any more, which is
	// before our own end only so if it gave up.
	if _, err := c.Conn.Write(nil); err != nil {
		return &net.OpError{Op: "read", Net: "vsock", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: syscall.ECONNRESET}
	}
	return nil
}

// CloseWrite tells the peer that nothing follows.
func (c *Conn) CloseWrite() error {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return errNoHalfClose
	}
	c.ended.Store(true)
	return half.CloseWrite()
}

// CloseRead refuses what the peer still sends.
func (c *Conn) CloseRead() error {
	half, ok := c.Conn.(interface{ CloseRead() error })
	if !ok {
		return errNoHalfClose
	}
	return half.CloseRead()
}

// Reset closes the stream such that the peer's reads fail.
func (c *Conn) Reset() error { return c.Conn.Close() }

// SyscallConn is the socket. Who reads it has to ask AtEOF at its end.
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	s, ok := c.Conn.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return s.SyscallConn()
}

// Socketed says that a duplicate of the socket can stand for the connection, if it
// keeps to the order above.
func (c *Conn) Socketed() {}

// WriteMax is the limit of the connection below: the most bytes that one write to
// its socket may have, or 0.
func (c *Conn) WriteMax() int {
	if l, ok := c.Conn.(interface{ WriteMax() int }); ok {
		return l.WriteMax()
	}
	return 0
}

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
