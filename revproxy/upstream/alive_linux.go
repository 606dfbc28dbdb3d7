package upstream

import "syscall"

// quietAndOpen reports whether an idle connection can be used: the app has
// neither closed it nor said anything that nobody asked for. What it said is
// lost, and so is the connection.
func (c *conn) quietAndOpen() bool {
	if q, ok := c.Conn.(quiet); ok {
		return q.Quiet(true)
	}
	if c.raw == nil {
		return true // found out by using it
	}
	open := false
	err := c.raw.Control(func(fd uintptr) {
		var b [1]byte
		n, err := syscall.Read(int(fd), b[:]) // never waits: Go's sockets do not block
		open = n <= 0 && (err == syscall.EAGAIN || err == syscall.EINTR)
	})
	return err == nil && open
}
