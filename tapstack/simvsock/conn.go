package simvsock

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// probeTimeout bounds the question whether a socket's owner is alive.
const probeTimeout = time.Second

// A conn is a unix connection with VSOCK addresses.
type conn struct {
	*net.UnixConn
	local, remote net.Addr
}

// newConn gives a socket the addresses, and the buffer that a socket of AF_VSOCK
// gets: what is on its way may be as much.
func newConn(c *net.UnixConn, local, remote net.Addr) *conn {
	// The kernel doubles the number, for what it keeps beside the data, and cuts it
	// to net.core.wmem_max. Less is slower, no failure.
	_ = c.SetWriteBuffer(vsockconn.DefaultBuffer / 2)
	return &conn{UnixConn: c, local: local, remote: remote}
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// Rebuild makes a connection like this one of a descriptor of its socket, which it
// owns, also after an error.
func (c *conn) Rebuild(file *os.File) (net.Conn, error) {
	defer file.Close()
	again, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("simvsock: rebuild a connection: %w", err)
	}
	u, ok := again.(*net.UnixConn)
	if !ok {
		again.Close()
		return nil, fmt.Errorf("simvsock: rebuild a connection: a %T is no unix connection", again)
	}
	return &conn{UnixConn: u, local: c.local, remote: c.remote}, nil
}

// A listener is a unix listener whose connections have VSOCK addresses. Close
// removes the socket's file.
type listener struct {
	*net.UnixListener
	addr vsockconn.Addr
	peer func(name string) vsockconn.Addr
}

// Accept waits for a connection.
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.AcceptUnix()
	if err != nil {
		return nil, err
	}
	return newConn(c, l.addr, l.peer(c.RemoteAddr().String())), nil
}

// Addr returns the VSOCK address that is listened on.
func (l *listener) Addr() net.Addr { return l.addr }

// listenUnix listens on the socket named name. A file without a process behind
// it, as a crash leaves it, is replaced; a living owner is left alone.
func listenUnix(name string) (*net.UnixListener, error) {
	addr := &net.UnixAddr{Name: name, Net: "unix"}
	l, err := net.ListenUnix("unix", addr)
	if !errors.Is(err, syscall.EADDRINUSE) {
		return l, err
	}
	c, err := net.DialTimeout("unix", name, probeTimeout)
	if err == nil {
		c.Close()
		return nil, fmt.Errorf("%s is in use by another process: %w", name, syscall.EADDRINUSE)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("%s is in use: %w", name, err)
	}
	info, err := os.Lstat(name)
	if err != nil {
		return nil, err
	}
	if info.Mode().Type() != os.ModeSocket {
		return nil, fmt.Errorf("%s is in the way and not a socket: %w", name, syscall.EADDRINUSE)
	}
	if err := os.Remove(name); err != nil {
		return nil, err
	}
	return net.ListenUnix("unix", addr)
}

// adopt makes a listener of a socket that another process opened.
func adopt(file *os.File) (*net.UnixListener, error) {
	l, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("simvsock: adopt a socket: %w", err)
	}
	u, ok := l.(*net.UnixListener)
	if !ok {
		l.Close()
		return nil, fmt.Errorf("simvsock: adopt a socket: %s is no unix socket", l.Addr())
	}
	return u, nil
}
