package credentials

import (
	"net"
	"sync"
)

// bounded accepts so many connections at a time, and closes those beyond.
type bounded struct {
	net.Listener
	server *Server
}

// Accept implements net.Listener.
func (b bounded) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err // the server asks whether it is temporary
		}
		select {
		case b.server.connected <- struct{}{}:
			return &boundedConn{Conn: c, leave: sync.OnceFunc(func() { <-b.server.connected })}, nil
		default:
			b.server.crowded.Add(1)
			c.Close()
		}
	}
}

// A boundedConn counts until it is closed.
type boundedConn struct {
	net.Conn
	leave func()
}

// Close implements net.Conn.
func (c *boundedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// unbound is the connection as it was accepted, which knows its peer.
func unbound(c net.Conn) net.Conn {
	if b, ok := c.(*boundedConn); ok {
		return b.Conn
	}
	return c
}
