package balance

import (
	"slices"
	"time"

	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// leastWeight is the share that an enclave gets when it has just come up.
const leastWeight = 0.1

// A health is what is believed of an enclave. An enclave that nobody checks is up.
//
//	         Fall checks, or attempts to reach it, fail in a row
//	┌──► up ──────────────────────────────────────────────┐
//	│     ▲                                               ▼
//	│     └── SlowStart is over ── warming ◄── Rise ──── down
//	│                                │     checks pass    ▲
//	first seen                       └────────────────────┘
//	                                      Fall, as above
//
// An enclave that is warming gets a share of clients that grows to that of the
// others. One that is down gets them if no other takes them: the checks may be
// wrong, and no client is worse off. Being drained is another matter: an operator
// says so and takes it back, and meanwhile it gets nobody.
type health int

const (
	up health = iota
	down
)

// A member is one enclave. It belongs to the Balancer's lock.
type member struct {
	cid     vsockconn.CID
	health  health
	rose    time.Time // when it came up after it had been down; zero if it never was
	since   time.Time // of the health
	passed  int       // checks in a row
	missed  int       // checks and attempts in a row
	reason  string    // of the last one that failed
	watched bool
	drained bool
	asked   bool // a check is under way

	connections int
	taken       uint64
	failures    uint64 // attempts to reach it
	turn        uint64 // when it was last chosen
}

func (m *member) become(h health, now time.Time) {
	m.health, m.since, m.passed, m.missed, m.rose = h, now, 0, 0, time.Time{}
}

// weight is the share of clients that the enclave gets beside others, from
// leastWeight to 1.
func (m *member) weight(now time.Time, slowStart time.Duration) float64 {
	if m.rose.IsZero() || slowStart <= 0 {
		return 1
	}
	return max(leastWeight, min(1, float64(now.Sub(m.rose))/float64(slowStart)))
}

// betterThan orders enclaves for the next client: health, then the connections
// that each would have for its weight, then whose turn it is.
func (m *member) betterThan(o *member, now time.Time, slowStart time.Duration) bool {
	if m.health != o.health {
		return m.health == up
	}
	a := float64(m.connections+1) / m.weight(now, slowStart)
	b := float64(o.connections+1) / o.weight(now, slowStart)
	if a != b {
		return a < b
	}
	return m.turn < o.turn
}

// A Status is what is known of one enclave.
type Status struct {
	CID         vsockconn.CID
	Health      string // up, warming, down, or unchecked
	Drained     bool
	Connections int    // now
	Taken       uint64 // clients it was chosen for
	Failures    uint64 // of them, those whom it did not take
	Reason      string // why it is down
	Since       time.Time
}

// Status returns what is known of each enclave, ordered by CID. Those that are
// neither checked nor drained may be forgotten when they have no connections.
func (b *Balancer) Status() []Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	var all []Status
	for _, m := range b.members {
		s := Status{
			CID: m.cid, Health: m.name(now, b.policy.SlowStart), Drained: m.drained, Connections: m.connections,
			Taken: m.taken, Failures: m.failures, Since: m.since,
		}
		if m.health == down {
			s.Reason = m.reason
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b Status) int { return int(int64(a.CID) - int64(b.CID)) })
	return all
}

func (m *member) name(now time.Time, slowStart time.Duration) string {
	switch {
	case !m.watched:
		return "unchecked"
	case m.health == down:
		return "down"
	case m.weight(now, slowStart) < 1:
		return "warming"
	}
	return "up"
}
