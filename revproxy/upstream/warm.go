package upstream

import (
	"context"
	"time"
)

// Warm sees to it that a number of unused connections is there which are young
// enough to last for another while: so one that calls it more often than twice in
// IdleTimeout never has fewer, if the app accepts them. Those that the app has
// ended are closed. It returns the first error of Dial.
func (t *Transport) Warm(ctx context.Context, n int) error {
	for have := t.idle.young(time.Now()); have < n; have++ {
		c, err := t.dial(ctx)
		if err != nil {
			return err
		}
		t.idle.put(c, time.Now())
	}
	return nil
}

// young closes the connections that cannot be used any more, and returns how many
// of the others are in the first half of their time.
func (p *pool) young(now time.Time) int {
	dead, n := p.sift(now)
	for _, c := range dead {
		_ = c.Close()
	}
	return n
}

func (p *pool) sift(now time.Time) (dead []*conn, young int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := p.idle[:0]
	for _, c := range p.idle {
		if !c.quietAndOpen() { // a look that does not wait
			dead = append(dead, c)
			continue
		}
		kept = append(kept, c)
		if p.age == 0 || now.Sub(c.since) < p.age/2 {
			young++
		}
	}
	clear(p.idle[len(kept):])
	p.idle = kept
	return dead, young
}
