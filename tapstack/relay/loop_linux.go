package relay

import (
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// eventsAtOnce is how many sockets a loop asks the kernel for at a time.
const eventsAtOnce = 128

// A loop waits for the sockets of many pairs at once, and passes on what comes:
//
//	          first pair                last pair is gone
//	(nothing) ──────────► a goroutine that polls ──────────► (nothing)
//
// Polling is level-triggered and asks for nothing that is not needed: a unix
// socket would report every read of its peer as room to write, and each would be a
// wake-up for nothing. The runtime waits for the poll descriptor as for any other:
// a goroutine in a blocking epoll_wait(2) would keep its processor from others.
type loop struct {
	pairs atomic.Int64

	mu   sync.Mutex
	poll int      // epoll(7); valid while pairs is not 0
	file *os.File // of poll, for the runtime
	ends []*end   // by descriptor
}

// add begins to relay a pair.
func (l *loop) add(p *pair) error {
	p.loop = l
	if err := l.enter(p); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ask()
}

// enter counts the pair in, and starts the loop if it is the first.
func (l *loop) enter(p *pair) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pairs.Load() == 0 {
		if err := l.open(); err != nil {
			return err
		}
	}
	l.pairs.Add(1)
	p.entered = true
	if n := max(p.a.fd, p.b.fd) + 1; len(l.ends) < n {
		l.ends = append(l.ends, make([]*end, n-len(l.ends))...)
	}
	l.ends[p.a.fd], l.ends[p.b.fd] = &p.a, &p.b
	return nil
}

// open starts to poll; the caller holds the lock.
func (l *loop) open() error {
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	// So marked, the runtime waits for it without a thread.
	if err := unix.SetNonblock(poll, true); err != nil {
		unix.Close(poll)
		return os.NewSyscallError("fcntl", err)
	}
	file := os.NewFile(uintptr(poll), "epoll")
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return err
	}
	l.poll, l.file = poll, file
	go l.run(raw)
	return nil
}

// leave forgets a pair, whose descriptors are not closed yet. The last one ends the
// goroutine.
func (l *loop) leave(p *pair) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ends[p.a.fd], l.ends[p.b.fd] = nil, nil
	if l.pairs.Add(-1) == 0 {
		l.file.Close()
	}
}

// run passes on until the poll descriptor is closed.
func (l *loop) run(raw syscall.RawConn) {
	var (
		events [eventsAtOnce]unix.EpollEvent
		ready  [eventsAtOnce]*end
		room   reader
		n      int
	)
	wait := func(poll uintptr) bool {
		n, _ = unix.EpollWait(int(poll), events[:], 0) // fails only if it is interrupted
		if n <= 0 {
			room.done()
		}
		return n > 0
	}
	defer room.done()
	for raw.Read(wait) == nil {
		l.mu.Lock()
		for i, event := range events[:n] {
			ready[i] = l.ends[event.Fd]
		}
		l.mu.Unlock()
		for i, event := range events[:n] {
			if e := ready[i]; e != nil {
				e.pair.step(e, event.Events, &room)
			}
			ready[i] = nil
		}
	}
}

// A reader is the room that a loop reads into. A pair that cannot write at once
// what was read keeps the buffer, and the loop takes another one.
type reader struct{ buf *buffer }

func (r *reader) bytes(size int) []byte {
	if r.buf == nil {
		_, r.buf = borrow(size)
	}
	return r.buf[:size]
}

// keep hands over the buffer.
func (r *reader) keep() *buffer {
	b := r.buf
	r.buf = nil
	return b
}

func (r *reader) done() { giveBack(r.keep()) }
