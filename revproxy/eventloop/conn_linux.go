package eventloop

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// addresses are what a connection goes on saying of itself.
type addresses struct{ local, remote net.Addr }

func (a addresses) LocalAddr() net.Addr  { return a.local }
func (a addresses) RemoteAddr() net.Addr { return a.remote }

// A state is what is known of a socket.
type state uint8

const (
	readable state = 1 << iota
	writable
	hungUp // the peer has ended its direction, or both
)

// A Conn is a socket on a Loop. It is a net.Conn for the loop's tasks, one at a
// time. Close, CloseWrite, Return, Control, Gone and a look by Quiet are for
// everybody; a task that waits for what is closed or returned is resumed.
type Conn struct {
	addresses
	loop    *Loop
	born    int32 // tells it from others that had its descriptor
	rebuild func(*os.File) (net.Conn, error)

	mu     sync.Mutex // held while fd is used
	fd     int
	closed atomic.Bool

	state    state
	wanted   state // by waiter
	waiter   *Task
	awaited  atomic.Bool // there is a waiter
	hup      atomic.Bool // hungUp, for everybody
	asks     uint32      // what the kernel is asked for
	readEnd  time.Time   // deadline of Read; zero: none
	writeEnd time.Time   // deadline of Write; zero: none
}

// Take takes a socket from the runtime: a TCP or unix connection, or a Socket. The
// connection that it was in is closed then, to the runtime but not to the peer, and its
// deadlines are gone. After an error the connection is the caller's to close.
func (t *Task) Take(c net.Conn) (*Conn, error) {
	fd, err := detach(c)
	if err != nil {
		return nil, err
	}
	l := t.loop
	x := &Conn{
		addresses: addresses{c.LocalAddr(), c.RemoteAddr()},
		loop:      l, fd: fd, state: writable, rebuild: fileConn,
	}
	if s, ok := c.(Socket); ok {
		x.rebuild = s.Rebuild
	}
	l.mu.Lock()
	if n := fd + 1; len(l.conns) < n {
		l.conns = append(l.conns, make([]*Conn, n-len(l.conns))...)
	}
	l.born++
	x.born = l.born
	l.conns[fd] = x
	l.mu.Unlock()
	x.asks = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET
	if err := x.ask(unix.EPOLL_CTL_ADD); err != nil {
		_ = x.Close()
		return nil, err
	}
	return x, nil
}

// errNoSocket reports a connection that is no socket that could be taken.
var errNoSocket = errors.New("eventloop: not a socket")

// Takes reports whether a connection can be taken, if nothing goes wrong.
func Takes(c net.Conn) bool {
	switch c.(type) {
	case *net.TCPConn, *net.UnixConn, Socket:
		return true
	}
	return false
}

// detach gives the socket a descriptor of our own, and closes the connection.
func detach(c net.Conn) (int, error) {
	sc, ok := c.(syscall.Conn)
	if !ok || !Takes(c) {
		return 0, errNoSocket
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, err
	}
	fd, dupErr := -1, error(nil)
	if err := raw.Control(func(old uintptr) { fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return 0, err
	}
	if dupErr != nil {
		return 0, os.NewSyscallError("fcntl", dupErr)
	}
	_ = c.Close() // the runtime polls the socket no longer
	return fd, nil
}

func (c *Conn) ask(how int) error {
	err := unix.EpollCtl(c.loop.poll, how, c.fd, &unix.EpollEvent{Events: c.asks, Fd: int32(c.fd), Pad: c.born})
	return os.NewSyscallError("epoll_ctl", err)
}

// happened takes down what the kernel reports. What a peer has ended stays readable
// to the end.
func (c *Conn) happened(events uint32) {
	if events&unix.EPOLLIN != 0 {
		c.state |= readable
	}
	if events&unix.EPOLLOUT != 0 {
		c.state |= writable
	}
	if events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		c.state |= readable | hungUp
		c.hup.Store(true)
	}
	if events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		c.state |= writable
	}
}

// waits has a task resumed by what is wanted; nil: nobody.
func (c *Conn) waits(t *Task, wanted state) {
	c.waiter, c.wanted = t, wanted
	c.awaited.Store(t != nil)
}

// Gone reports whether the peer has ended its direction, as far as is known without
// asking, or the connection was closed here.
func (c *Conn) Gone() bool { return c.closed.Load() || c.hup.Load() }

// Quiet reports whether the peer has neither said nor ended anything that was not
// read. With look the kernel is asked, and then it is for everybody; without, only if
// what it has told the loop leaves that open, as a read that filled its buffer does.
func (c *Conn) Quiet(look bool) bool {
	if c.Gone() {
		return false
	}
	if !look && c.state&readable == 0 {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed.Load() {
		return false
	}
	var b [1]byte
	n, _, err := unix.Recvfrom(c.fd, b[:], unix.MSG_PEEK)
	return n <= 0 && (err == unix.EAGAIN || err == unix.EINTR)
}

// Wait waits until Read has something to return.
func (c *Conn) Wait() error {
	for c.state&readable == 0 {
		if c.closed.Load() {
			return net.ErrClosed
		}
		if err := c.loop.current.wait(c, readable, c.readEnd); err != nil {
			return c.failed("read", err)
		}
	}
	return nil
}

// Read reads what has come, or waits for it.
func (c *Conn) Read(p []byte) (int, error) {
	c.loop.current.turn()
	for {
		if err := c.Wait(); err != nil {
			return 0, err
		}
		n, err := c.readSome(p)
		switch {
		case err == unix.EAGAIN:
			c.state &^= readable
			continue
		case err != nil:
			return 0, c.failed("read", err)
		case n == 0 && len(p) > 0:
			return 0, io.EOF
		}
		if n < len(p) && c.state&hungUp == 0 {
			c.state &^= readable // all that there was: what comes is told
		}
		return n, nil
	}
}

func (c *Conn) readSome(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed.Load() {
		return 0, net.ErrClosed
	}
	return read(c.fd, p)
}

// Write writes all of p.
func (c *Conn) Write(p []byte) (n int, err error) {
	for {
		some, err := c.writeSome(p[n:])
		n += some
		switch {
		case err == unix.EAGAIN:
			if err := c.awaitRoom(); err != nil {
				return n, c.failed("write", err)
			}
		case err != nil:
			return n, c.failed("write", err)
		case n == len(p):
			return n, nil
		}
	}
}

func (c *Conn) writeSome(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed.Load() {
		return 0, net.ErrClosed
	}
	return write(c.fd, p)
}

// awaitRoom waits until the socket takes more.
func (c *Conn) awaitRoom() error {
	c.state &^= writable
	c.mu.Lock()
	if c.closed.Load() {
		c.mu.Unlock()
		return net.ErrClosed
	}
	c.asks |= unix.EPOLLOUT
	err := c.ask(unix.EPOLL_CTL_MOD)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	err = c.loop.current.wait(c, writable, c.writeEnd)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asks &^= unix.EPOLLOUT; !c.closed.Load() {
		err = errors.Join(err, c.ask(unix.EPOLL_CTL_MOD))
	}
	return err
}

// failed says what failed, as connections of package net do.
func (c *Conn) failed(op string, err error) error {
	if err == net.ErrClosed || err == ErrGone {
		return err
	}
	if errno, ok := err.(syscall.Errno); ok {
		err = os.NewSyscallError(op, errno)
	}
	return &net.OpError{Op: op, Net: c.remote.Network(), Source: c.local, Addr: c.remote, Err: err}
}

// CloseWrite ends our direction.
func (c *Conn) CloseWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed.Load() {
		return net.ErrClosed
	}
	return os.NewSyscallError("shutdown", unix.Shutdown(c.fd, unix.SHUT_WR))
}

// Close closes the socket. Whoever waits for it is resumed.
func (c *Conn) Close() error {
	fd := c.release()
	if fd < 0 {
		return net.ErrClosed
	}
	return os.NewSyscallError("close", unix.Close(fd))
}

// release takes the descriptor out of the loop, and returns it; -1 if it is gone.
func (c *Conn) release() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed.Swap(true) {
		return -1
	}
	l := c.loop
	l.mu.Lock()
	l.conns[c.fd] = nil
	l.mu.Unlock()
	if c.awaited.Load() {
		l.call(call{conn: c})
	}
	return c.fd
}

// Return gives the socket back to the runtime, in a connection of its own kind. The
// Conn is closed then, and if it fails the socket too.
func (c *Conn) Return() (net.Conn, error) {
	fd := c.release()
	if fd < 0 {
		return nil, net.ErrClosed
	}
	err := unix.EpollCtl(c.loop.poll, unix.EPOLL_CTL_DEL, fd, nil)
	file := os.NewFile(uintptr(fd), "socket")
	if err != nil {
		file.Close()
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	return c.rebuild(file)
}

// fileConn is Rebuild of what package net knows.
func fileConn(file *os.File) (net.Conn, error) {
	defer file.Close()
	return net.FileConn(file)
}

// Control calls f with the socket, which stays open meanwhile. It is for everybody.
func (c *Conn) Control(f func(fd uintptr)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed.Load() {
		return net.ErrClosed
	}
	f(uintptr(c.fd))
	return nil
}

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	c.readEnd, c.writeEnd = t, t
	return nil
}

// SetReadDeadline sets when a Read has waited too long.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.readEnd = t
	return nil
}

// SetWriteDeadline sets when a Write has waited too long.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.writeEnd = t
	return nil
}
