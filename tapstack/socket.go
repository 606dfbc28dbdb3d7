package tapstack

import (
	"io"
	"net"
	"syscall"

	"github.com/corridor-enclave/corridor/tapstack/nonblock"
)

// WriteSocket returns the socket that the Write of conn leads to and nothing
// else, for those who write several pieces with one call. It returns nil if conn
// has none, or does more with what is written than to pass it on.
func WriteSocket(conn net.Conn) syscall.RawConn {
	if c, ok := conn.(interface{ WriteSocket() syscall.RawConn }); ok {
		return c.WriteSocket()
	}
	return socketOf(conn)
}

func socketOf(conn net.Conn) syscall.RawConn {
	if c, ok := conn.(syscall.Conn); ok {
		if raw, err := c.SyscallConn(); err == nil {
			return raw
		}
	}
	return nil
}

// StreamReader returns what reads conn at the least cost: the socket that its Read
// leads to, if it does nothing else; or conn.
func StreamReader(conn net.Conn) io.Reader {
	if raw := ReadSocket(conn); raw != nil && nonblock.Possible {
		return nonblock.NewReader(raw)
	}
	return conn
}

// ReadSocket returns the socket that the Read of conn reads and nothing else, or nil.
func ReadSocket(conn net.Conn) syscall.RawConn {
	if c, ok := conn.(interface{ ReadSocket() syscall.RawConn }); ok {
		return c.ReadSocket()
	}
	return socketOf(conn)
}

// StreamWriter returns what writes to conn at the least cost: the socket that its
// Write leads to, if it does nothing else; or conn. One goroutine may use it at a time.
func StreamWriter(conn net.Conn) io.Writer {
	if raw := WriteSocket(conn); raw != nil && nonblock.Possible {
		return nonblock.NewWriter(raw)
	}
	return conn
}
