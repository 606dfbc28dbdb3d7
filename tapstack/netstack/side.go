package netstack

import (
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/waiter"
)

// A side is what Read or Write of a Conn waits with. It is registered for as long as
// the connection lives, so that waiting allocates nothing.
type side struct {
	mu       sync.Mutex // held by the one that reads or writes
	entry    waiter.Entry
	ready    chan struct{} // holds a token when it is worth to try again
	deadline deadline
}

func (s *side) register(wq *waiter.Queue, events waiter.EventMask) {
	s.entry, s.ready = waiter.NewChannelEntry(events | waiter.EventErr | waiter.EventHUp)
	s.deadline.passed = make(chan struct{})
	wq.EventRegister(&s.entry)
}

// wait waits until it is worth to try again, or the deadline has passed.
func (s *side) wait() {
	select {
	case <-s.ready:
	case <-s.deadline.over():
	}
}

// A deadline is a time at which a channel is closed, and which may change.
type deadline struct {
	mu     sync.Mutex
	timer  *time.Timer   // nil: none was set
	passed chan struct{} // closed when it has passed
}

// set sets the time; zero is never.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.passed // its function is about to close it, or has
	}
	d.timer = nil
	if isDone(d.passed) {
		d.passed = make(chan struct{})
	}
	if t.IsZero() {
		return
	}
	passed := d.passed
	left := time.Until(t)
	if left <= 0 {
		close(passed)
		return
	}
	d.timer = time.AfterFunc(left, func() { close(passed) })
}

// over is closed when the deadline that is set now has passed.
func (d *deadline) over() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.passed
}

func isDone(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
