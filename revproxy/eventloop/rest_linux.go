package eventloop

import (
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A rest is how a loop that has nothing to do leaves the waiting to the runtime,
// which has the processor for others meanwhile, and which knows when to sleep:
//
//	sockets ──► the loop's poll ──► gate ──► the runtime's poll
//	            every event         the next one, if open
//
// The runtime watches the gate for good, and would wake up with every event if it
// watched the poll. So a wait costs two system calls, where a descriptor for each
// costs six.
type rest struct {
	gate int // epoll(7) of the loop's poll
	poll int
	file *os.File // owns the gate, with the runtime
	raw  syscall.RawConn

	open   bool      // the gate
	end    time.Time // the deadline of file
	events []unix.EpollEvent
	n      int // how many came
	look   func(uintptr) bool
}

// newRest watches the poll of a loop.
func newRest(poll int) (*rest, error) {
	gate, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	r := &rest{gate: gate, poll: poll}
	if err = unix.EpollCtl(gate, unix.EPOLL_CTL_ADD, poll, &unix.EpollEvent{Events: unix.EPOLLONESHOT}); err == nil {
		err = unix.SetNonblock(gate, true) // so marked, the runtime can wait for it
	}
	if err != nil {
		unix.Close(gate)
		return nil, err
	}
	r.file = os.NewFile(uintptr(gate), "epoll")
	if r.raw, err = r.file.SyscallConn(); err == nil {
		err = r.file.SetReadDeadline(r.end) // which only a file that the runtime watches has
	}
	if err != nil {
		r.close()
		return nil, err
	}
	r.look = r.step
	return r, nil
}

func (r *rest) close() { _ = r.file.Close() }

// wait waits until a time; the zero time is for ever. It returns how many events
// there are.
func (r *rest) wait(events []unix.EpollEvent, until time.Time) int {
	if !until.Equal(r.end) {
		r.end = until
		_ = r.file.SetReadDeadline(until)
	}
	r.events, r.n = events, 0
	_ = r.raw.Read(r.look) // ends with the deadline, or an event
	if r.open {
		r.set(0)
		r.take()
		r.open = false
	}
	return r.n
}

// step opens the gate, and looks when the runtime has been told of an event. What
// was not taken from the gate is not told anew, so it is taken before the look, and
// nothing is left when a wait begins.
func (r *rest) step(uintptr) bool {
	if r.open {
		r.open = !r.take()
		if r.n = glance(r.poll, r.events); r.n > 0 {
			return true
		}
	}
	r.open = true
	r.set(unix.EPOLLIN)
	return false
}

// set says what is to come through the gate, once.
func (r *rest) set(events uint32) {
	_ = unix.EpollCtl(r.gate, unix.EPOLL_CTL_MOD, r.poll, &unix.EpollEvent{Events: events | unix.EPOLLONESHOT})
}

// take takes what has come through the gate, which shuts it. It reports whether
// there was something.
func (r *rest) take() bool {
	var one [1]unix.EpollEvent
	return glance(r.gate, one[:]) > 0
}
