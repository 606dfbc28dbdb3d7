package causal

import (
	"sync/atomic"
	"time"
)

// A Point is a marked point in a hop: every operation passes it once. The zero
// value delays nothing.
type Point struct{ delay atomic.Int64 }

// Slow is a Hop's Slow.
func (p *Point) Slow(d time.Duration) { p.delay.Store(int64(d)) }

// Pass returns when the delay is over. It computes meanwhile and does not sleep: a
// hop that is slower uses the processor for longer, and sleeping would give it to
// the others.
func (p *Point) Pass() {
	d := time.Duration(p.delay.Load())
	if d == 0 {
		return
	}
	for began := time.Now(); time.Since(began) < d; {
	}
}
