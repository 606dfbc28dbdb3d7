package impair

import (
	"math/rand/v2"
	"time"
)

// A fate is what chance does to one packet.
type fate struct {
	lost, twice, overtakes bool
	jitter                 time.Duration
}

// dice decide fates. Each packet takes the same number of throws, so that the
// n-th fate depends on the seed and on n, and on nothing that happened meanwhile.
type dice struct {
	p      Profile
	random *rand.Rand
}

func newDice(p Profile, seed, stream uint64) *dice {
	return &dice{p: p, random: rand.New(rand.NewPCG(seed, stream))}
}

func (d *dice) next() fate {
	return fate{
		lost:      d.random.Float64() < d.p.Loss,
		twice:     d.random.Float64() < d.p.Duplicate,
		overtakes: d.random.Float64() < d.p.Reorder,
		jitter:    time.Duration(d.random.Float64() * float64(d.p.Jitter)),
	}
}

// A line says when packets arrive at its other end. It is arithmetic: it holds no
// packet and reads no clock.
//
//	          lost?      queue full?                            overtakes?
//	packet ──►  │ ──────────► │ ──► one after the other ──┬─────────────────────► arrives,
//	            ▼             ▼         at Rate           └─► Delay + jitter ───► perhaps twice
type line struct {
	dice *dice
	free time.Duration // when the packets so far have been put on the line
	last time.Duration // when the latest of them in order arrives
}

// A verdict is what becomes of one packet.
type verdict struct {
	fate
	overflow bool          // dropped because the queue was full
	arrives  time.Duration // if it is neither lost nor dropped
}

// admit decides about a packet of so many bytes that is sent now. It never drops
// one from a stream.
func (l *line) admit(now time.Duration, size int, stream bool) verdict {
	v := verdict{fate: l.dice.next()}
	if v.lost {
		return v
	}
	p := l.dice.p
	if p.Rate > 0 {
		if !stream && l.waiting(now)+int64(size) > p.queue() {
			v.overflow = true
			return v
		}
		l.free = max(l.free, now) + time.Duration(float64(size)/float64(p.Rate)*float64(time.Second))
	} else {
		l.free = now
	}
	if v.overtakes {
		v.arrives = l.free
		return v
	}
	v.arrives = max(l.free+p.Delay+v.jitter, l.last)
	l.last = v.arrives
	return v
}

// waiting is how many bytes are in the queue.
func (l *line) waiting(now time.Duration) int64 {
	return int64(float64(max(0, l.free-now)) / float64(time.Second) * float64(l.dice.p.Rate))
}
