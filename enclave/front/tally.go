package front

import (
	"context"
	"sync"
)

// A tally counts requests under way, upgraded ones included, which http.Server
// forgets. Its zero value is ready.
type tally struct {
	mu   sync.Mutex
	n    int
	zero chan struct{} // closed when n reaches 0; nil while nobody waits
}

func (t *tally) add() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n++
}

func (t *tally) done() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n--
	if t.n == 0 && t.zero != nil {
		close(t.zero)
		t.zero = nil
	}
}

func (t *tally) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.n
}

// wait returns nil once nothing is under way.
func (t *tally) wait(ctx context.Context) error {
	t.mu.Lock()
	if t.n == 0 {
		t.mu.Unlock()
		return nil
	}
	if t.zero == nil {
		t.zero = make(chan struct{})
	}
	zero := t.zero
	t.mu.Unlock()
	select {
	case <-zero:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Connections is how many clients are connected, how many connections ended to make room
// for others, and how many were refused for want of it.
func (f *Front) Connections() (open int, closed, refused uint64) { return f.bound.counts() }

// UnderWay is how many requests are being answered, upgraded ones included.
func (f *Front) UnderWay() int { return f.requests.count() }
