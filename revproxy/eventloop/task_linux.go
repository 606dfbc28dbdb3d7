package eventloop

import (
	"os"
	"time"
)

// turns is how often a task may read without waiting until others have their turn.
const turns = 16

// A Task is a coroutine on a Loop. All its methods, and most of those of its connections,
// are for its own function alone:
//
//	        ┌───────── the socket, the time, the other goroutine ─────────┐
//	        ▼                                                             │
//	new ──► runs ──► Read, Write, Wait with nothing to do; Do ──────► waits
//	        │
//	        └──► ended
//
// It must wait for nothing else for long: while it does, its loop stands still.
type Task struct {
	loop   *Loop
	resume func() (struct{}, bool)
	yield  func(struct{}) bool

	until  time.Time // when the wait has lasted too long; zero: never
	late   bool      // it has
	timer  timer
	spent  int   // reads since it was resumed
	minded *Conn // nil: none
	also   state // of minded, what ends waits
}

// Loop is where the task runs.
func (t *Task) Loop() *Loop { return t.loop }

// Now is when the loop last asked the kernel what has come: what the task was resumed
// for had come by then. It is behind the clock by what the tasks took that ran since, and
// costs no reading of it.
func (t *Task) Now() time.Time { return t.loop.looked }

// Do runs f in another goroutine, and waits for its end: for what has to wait.
func (t *Task) Do(f func()) {
	go func() {
		defer t.loop.call(call{task: t})
		f()
	}()
	t.until = time.Time{}
	t.yield(struct{}{})
}

// Mind has waits for other connections end with ErrGone when c is closed here, and
// with peer also when its peer has ended its direction. A nil c ends it.
func (t *Task) Mind(c *Conn, peer bool) {
	t.minded, t.also = c, 0
	if peer {
		t.also = hungUp
	}
}

// turn gives way to others now and then.
func (t *Task) turn() {
	if t.spent++; t.spent < turns {
		return
	}
	t.loop.ready = append(t.loop.ready, t)
	t.until = time.Time{}
	t.yield(struct{}{})
}

// wait waits until a connection is what is wanted, or until a time. It may return
// nil for no reason.
func (t *Task) wait(c *Conn, wanted state, until time.Time) error {
	minded := t.minded
	if minded == c {
		minded = nil
	}
	t.begin(c, wanted, until)
	if minded != nil {
		minded.waits(t, t.also)
	}
	if !c.closed.Load() && !t.lost(minded) {
		t.yield(struct{}{})
	}
	c.waits(nil, 0)
	if minded != nil {
		minded.waits(nil, 0)
	}
	late := t.late
	t.late, t.until = false, time.Time{}
	switch {
	case c.closed.Load(), c.state&wanted != 0:
		return nil
	case t.lost(minded):
		return ErrGone
	case late:
		return os.ErrDeadlineExceeded
	}
	return nil
}

// lost reports whether what is minded is gone.
func (t *Task) lost(minded *Conn) bool {
	return minded != nil && (minded.closed.Load() || minded.state&t.also != 0)
}

// begin has the task resumed by a connection.
func (t *Task) begin(c *Conn, wanted state, until time.Time) {
	c.waits(t, wanted)
	if t.until = until; until.IsZero() {
		return
	}
	if t.timer.index < 0 || until.Before(t.timer.at) {
		t.loop.timers.set(&t.timer, until)
	}
}
