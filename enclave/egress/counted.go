package egress

import (
	"errors"
	"syscall"
)

// A counted connection says when it is gone.
type counted struct {
	connection
	left func()
}

// Close closes the connection; before both directions have ended that is a reset.
func (c *counted) Close() error {
	c.left()
	return c.connection.Close()
}

// Reset cuts the connection such that the peer notices.
func (c *counted) Reset() error {
	c.left()
	switch x := c.connection.(type) {
	case interface{ Reset() error }:
		return x.Reset()
	case interface{ SetLinger(int) error }:
		_ = x.SetLinger(0) // fails only on a closed socket, and then Close says so
	}
	return c.connection.Close()
}

// SyscallConn is the socket; see AtEOF.
func (c *counted) SyscallConn() (syscall.RawConn, error) {
	s, ok := c.connection.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return s.SyscallConn()
}

// AtEOF says what the end of the stream means to a reader of the socket: nil, or
// syscall.ECONNRESET.
func (c *counted) AtEOF() error {
	if s, ok := c.connection.(interface{ AtEOF() error }); ok {
		return s.AtEOF()
	}
	return nil
}
