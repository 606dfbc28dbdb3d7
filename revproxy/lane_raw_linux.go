package revproxy

import (
	"io"
	"os"
	"syscall"
)

// readRaw waits for the first bytes of a request, and holds a buffer only while it
// looks.
func (c *laneConn) readRaw() error {
	if c.step == nil {
		c.step = c.look
	}
	if err := c.raw.Read(c.step); err != nil {
		return err
	}
	return c.rawErr
}

// look reads what is there, or says to wait. Go's sockets never block.
func (c *laneConn) look(fd uintptr) bool {
	c.take()
	n, err := syscall.Read(int(fd), c.b.in[:])
	for err == syscall.EINTR {
		n, err = syscall.Read(int(fd), c.b.in[:])
	}
	switch {
	case err == syscall.EAGAIN:
		c.release()
		return false
	case err != nil:
		c.rawErr = os.NewSyscallError("read", err)
	case n == 0:
		c.rawErr = io.EOF
	default:
		c.n, c.rawErr = n, nil
	}
	return true
}
