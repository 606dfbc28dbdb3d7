package upstream

import (
	"errors"
	"os"
	"syscall"
)

// An asking is an exchange of bytes on a socket, in the steps of one RawConn.Read.
// The runtime begins to watch the socket before the first of them, so nothing that
// the app says is missed by not looking right after the request was written.
type asking struct {
	request, answer []byte
	n               int
	err             error
	sent            bool
	step            func(fd uintptr) bool // one, for all exchanges of the connection
}

// ask sends a request and reads the first bytes of the answer.
func (c *conn) ask(request, answer []byte, again bool) (int, error) {
	if c.raw == nil {
		return c.askAny(request, answer, again)
	}
	a := &c.asking
	if a.step == nil {
		a.step = c.step
	}
	a.request, a.answer, a.n, a.err, a.sent = request, answer, 0, nil, false
	err := c.raw.Read(a.step)
	if err == nil {
		err = a.err
	}
	rest := a.request
	a.request, a.answer = nil, nil
	switch {
	case a.sent:
		return a.n, err
	case err == nil: // the socket takes no more for the moment
		return c.askSlowly(rest, answer)
	case errors.Is(err, os.ErrDeadlineExceeded): // the machine stood still so long, or the request waited
		if c.kept && !c.quietAndOpen() {
			return 0, errUnsent
		}
		if werr := c.push(rest); werr != nil {
			return 0, werr
		}
	}
	return 0, err
}

// step looks, writes, and says to wait; then it reads. Go's sockets never block.
func (c *conn) step(fd uintptr) bool {
	a := &c.asking
	if a.sent {
		a.n, a.err = readSome(fd, a.answer)
		return a.err != syscall.EAGAIN
	}
	if c.kept {
		var b [1]byte
		if n, err := readSome(fd, b[:]); n > 0 || err != syscall.EAGAIN {
			a.sent, a.err = true, errUnsent
			return true
		}
	}
	n, err := syscall.Write(int(fd), a.request)
	if n > 0 {
		a.request = a.request[n:]
	}
	switch {
	case len(a.request) == 0:
		a.sent = true
		return false
	case err != nil && err != syscall.EAGAIN && err != syscall.EINTR:
		a.sent, a.err = true, os.NewSyscallError("write", err)
	}
	return true
}

// readSome reads what is there.
func readSome(fd uintptr, p []byte) (int, error) {
	for {
		n, err := syscall.Read(int(fd), p)
		if err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}
