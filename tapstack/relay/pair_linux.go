package relay

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/corridor-enclave/corridor/tapstack/nonblock"
)

// A pair is one relay on a loop. The loop, its context and its idle timeout reach
// for it, so it has a lock; while it is held, nothing is waited for.
type pair struct {
	loop *loop
	size int           // of what is read at once
	done chan struct{} // closed when both sockets are

	mu      sync.Mutex
	a, b    end
	entered bool // the loop counts it
	closed  bool
	outcome
}

// An end is a socket and the direction that begins at it:
//
//	         a part could not be written
//	reading ◄────────────────────────────► pending    the socket is not read
//	   │        the rest is written           │
//	   │ end of stream                        │ refused
//	   └───────────────► over ◄───────────────┘
type end struct {
	pair    *pair
	other   *end
	fd      int
	side    Side
	resets  bool   // has SO_LINGER: TCP
	ordered bool   // has the order of WIRE.md, section 11.3
	asked   uint32 // what the loop polls it for; 0: it is not polled

	moved   atomic.Int64
	total   *atomic.Int64 // of the caller's, or nil
	pending []byte        // of buf, what is to be written to other
	buf     *buffer
	over    bool // nothing more is read
	told    bool // the socket was told the true end of other's stream
}

// step does what the events of one socket are about.
func (p *pair) step(e *end, events uint32, room *reader) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	if len(e.other.pending) > 0 && events&^unix.EPOLLIN != 0 {
		p.flush(e.other)
	} else if e.reading() {
		p.move(e, room)
	}
	if !p.closed && p.a.over && p.b.over {
		p.close()
	}
	if !p.closed {
		if err := p.ask(); err != nil {
			p.end(NoSide, fmt.Errorf("relay: %w", err))
			p.close()
		}
	}
}

func (e *end) reading() bool { return !e.over && len(e.pending) == 0 }

// move reads once, and writes what was read as far as it can be.
func (p *pair) move(e *end, room *reader) {
	chunk := room.bytes(p.size)
	n, err := nonblock.Receive(e.fd, chunk)
	switch {
	case err == unix.EAGAIN:
	case err != nil:
		p.broken(e, err)
	case n == 0:
		p.endOfStream(e)
	default:
		e.pending = chunk[:n]
		if p.flush(e); len(e.pending) > 0 {
			e.buf = room.keep()
		}
	}
}

// flush writes what is pending, as much as the other socket takes now.
func (p *pair) flush(e *end) {
	n, err := nonblock.Send(e.other.fd, e.pending)
	e.count(n)
	e.pending = e.pending[n:]
	if err != nil && err != unix.EAGAIN {
		p.end(e.other.side, fmt.Errorf("relay: write to %s: %w", e.other.side, os.NewSyscallError("write", err)))
		e.over, e.pending = true, nil
	}
	if len(e.pending) == 0 {
		e.pending = nil
		giveBack(e.buf)
		e.buf = nil
	}
}

func (e *end) count(n int) {
	e.moved.Add(int64(n))
	if e.total != nil {
		e.total.Add(int64(n))
	}
}

// endOfStream passes the end of the stream on, if it is one.
func (p *pair) endOfStream(e *end) {
	if e.ordered && !e.told {
		// Nothing is written: it fails if the peer takes nothing any more.
		if _, err := unix.Write(e.fd, nil); err != nil {
			p.broken(e, unix.ECONNRESET)
			return
		}
	}
	p.end(e.side, nil)
	e.over = true
	if err := unix.Shutdown(e.other.fd, unix.SHUT_WR); err != nil {
		p.end(e.other.side, fmt.Errorf("relay: end stream to %s: %w", e.other.side, os.NewSyscallError("shutdown", err)))
		return
	}
	e.other.told = true
}

// broken ends the relay, because a socket does not have the rest of its stream.
func (p *pair) broken(e *end, err error) {
	p.end(e.side, fmt.Errorf("relay: read from %s: %w", e.side, os.NewSyscallError("read", err)))
	p.close()
}

// giveUp ends the relay from outside.
func (p *pair) giveUp(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.end(NoSide, err)
		p.close()
	}
}

// ask has the loop poll both sockets for what they are to do next.
func (p *pair) ask() error {
	if err := p.a.ask(); err != nil {
		return err
	}
	return p.b.ask()
}

func (e *end) ask() error {
	var want uint32
	if e.reading() {
		want |= unix.EPOLLIN
	}
	if len(e.other.pending) > 0 {
		want |= unix.EPOLLOUT
	}
	if want == 0 {
		// Errors are reported all the same, but only once.
		want = unix.EPOLLONESHOT
	}
	if want == e.asked {
		return nil
	}
	how := unix.EPOLL_CTL_MOD
	if e.asked == 0 {
		how = unix.EPOLL_CTL_ADD
	}
	e.asked = want
	err := unix.EpollCtl(e.pair.loop.poll, how, e.fd, &unix.EpollEvent{Events: want, Fd: int32(e.fd)})
	return os.NewSyscallError("epoll_ctl", err)
}

// close closes both sockets, each as it deserves.
func (p *pair) close() {
	p.closed = true
	if p.entered {
		p.loop.leave(p)
	}
	for _, e := range []*end{&p.a, &p.b} {
		if e.resets && !e.told {
			// It fails only on a connection that is gone already.
			_ = unix.SetsockoptLinger(e.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		}
		unix.Close(e.fd)
		giveBack(e.buf)
		e.buf, e.pending = nil, nil
	}
	close(p.done)
}

func (p *pair) passed() int64 { return p.a.moved.Load() + p.b.moved.Load() }

func (p *pair) result() (Result, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Result{AToB: p.a.moved.Load(), BToA: p.b.moved.Load(), First: p.first}, p.err
}
