package tapstack

import (
	"net"
	"syscall"
)

// WriteSocket returns the socket that the Write of conn leads to and nothing
// else, for those who write several pieces with one call. It returns nil if conn
// has none, or does more with what is written than to pass it on.
func WriteSocket(conn net.Conn) syscall.RawConn {
	switch c := conn.(type) {
	case interface{ WriteSocket() syscall.RawConn }:
		return c.WriteSocket()
	case syscall.Conn:
		if raw, err := c.SyscallConn(); err == nil {
			return raw
		}
	}
	return nil
}
