package relay

import (
	"sync"
	"time"
)

// idleTicks is how often the idle timeout is looked at within one timeout.
const idleTicks = 4

// An idleWatch ends a relay through which nothing moves. It counts ticks in which
// no byte moved, so a read costs no timer.
type idleWatch struct {
	relay    watched
	interval time.Duration

	mu    sync.Mutex
	timer *time.Timer
	moved int64 // at the last tick
	quiet int   // ticks without a byte, in a row
}

// A watched is a relay under way.
type watched interface {
	passed() int64 // bytes, both ways
	giveUp(error)
}

// watchIdle begins to watch; nil is a watch that is not kept.
func watchIdle(r watched, timeout time.Duration) *idleWatch {
	if timeout <= 0 {
		return nil
	}
	w := &idleWatch{relay: r, interval: max(timeout/idleTicks, 1)}
	w.mu.Lock() // the first tick may come before the timer is known here
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(w.interval, w.tick)
	return w
}

func (w *idleWatch) tick() {
	if w.isIdle() {
		w.relay.giveUp(ErrIdle)
	}
}

// isIdle looks at the counters once, and has itself called again if need be.
func (w *idleWatch) isIdle() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer == nil {
		return false // stopped meanwhile
	}
	moved := w.relay.passed()
	if moved != w.moved {
		w.moved, w.quiet = moved, 0
	} else if w.quiet++; w.quiet == idleTicks {
		return true
	}
	w.timer.Reset(w.interval)
	return false
}

// stop ends the watch: a tick that comes later does nothing.
func (w *idleWatch) stop() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer.Stop()
	w.timer = nil
}
