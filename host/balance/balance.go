// Package balance chooses which enclave takes a client: the least busy one of
// those that are healthy, the next one if that cannot be reached. It asks enclaves
// how they are, but carries nothing and knows no road; publish does.
package balance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/corridor-enclave/corridor/tapstack/pacing"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

const (
	// attemptTimeout bounds one attempt to reach an enclave while there are others.
	attemptTimeout = time.Second
	// firstPause and lastPause bound the pause before all enclaves are tried again.
	firstPause = 20 * time.Millisecond
	lastPause  = 500 * time.Millisecond
)

// ErrDrained reports that every enclave that could take the client is drained. An
// operator may take one back into service: the caller may try again later.
var ErrDrained = errors.New("balance: every enclave is drained")

// A DialFunc connects to one enclave. If wait is set, there is no other one: it
// waits for an enclave that is not there as long as ctx allows.
type DialFunc func(ctx context.Context, cid vsockconn.CID, wait bool) (net.Conn, error)

// Config says what a Balancer works with.
type Config struct {
	// Check asks an enclave whether it takes clients. It is called for those that
	// share clients with another one; nil never asks.
	Check func(ctx context.Context, cid vsockconn.CID) error
	// Log is where events go; it must not be nil.
	Log *slog.Logger
}

// A Policy is what may change while the Balancer runs.
type Policy struct {
	Watched   []vsockconn.CID // enclaves that are checked
	Drained   []vsockconn.CID // enclaves that get no new clients
	Interval  time.Duration   // between two checks of one enclave, and the patience of each; 0: no checks
	Rise      int             // checks in a row that bring an enclave up
	Fall      int             // checks in a row, or attempts to reach it, that take it down
	SlowStart time.Duration   // how long one that came up gets fewer clients
}

// A Balancer knows how enclaves are and how many connections each has. Make one
// with New; Run it once.
type Balancer struct {
	config Config

	mu       sync.Mutex
	policy   Policy
	members  map[vsockconn.CID]*member
	turn     uint64        // counts choices
	changed  chan struct{} // closed and replaced when a wait may be over
	retuned  chan struct{} // tells Run of a new policy
	checking sync.WaitGroup
}

// New returns a Balancer that takes every enclave for healthy until it runs.
func New(c Config) *Balancer {
	return &Balancer{
		config: c, members: map[vsockconn.CID]*member{},
		changed: make(chan struct{}), retuned: make(chan struct{}, 1),
	}
}

// Apply puts a policy into effect. Enclaves that are not drained any more, and
// those that are watched now, are taken for healthy until checks say otherwise.
func (b *Balancer) Apply(p Policy) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.policy = p
	for _, cid := range slices.Concat(p.Watched, p.Drained) {
		b.member(cid)
	}
	for cid, m := range b.members {
		watched := slices.Contains(p.Watched, cid) && p.Interval > 0
		if m.watched != watched {
			m.watched = watched
			m.become(up, time.Now())
		}
		if drained := slices.Contains(p.Drained, cid); m.drained != drained {
			m.drained = drained
			b.config.Log.Info("enclave "+inOrOut(drained)+" service", "cid", uint32(cid), "connections", m.connections)
		}
		if !m.watched && !m.drained && m.connections == 0 {
			delete(b.members, cid)
		}
	}
	b.wake()
	select {
	case b.retuned <- struct{}{}:
	default:
	}
}

func inOrOut(drained bool) string {
	if drained {
		return "out of"
	}
	return "back in"
}

// wake ends all waits, for another look; the caller holds the lock.
func (b *Balancer) wake() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// member returns the enclave, new if need be; the caller holds the lock.
func (b *Balancer) member(cid vsockconn.CID) *member {
	m := b.members[cid]
	if m == nil {
		m = &member{cid: cid}
		b.members[cid] = m
	}
	return m
}

// Dial connects to one of the enclaves for one client, and counts the connection
// until leave is called. An enclave that cannot be reached hands the client on to
// the next one; if there is none left, all are tried again as long as ctx allows.
// Where there is but one, its error is that of dial.
func (b *Balancer) Dial(ctx context.Context, cids []vsockconn.CID, dial DialFunc) (conn net.Conn, leave func(), err error) {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		conn, leave, err = b.round(ctx, cids, dial)
		drained := errors.Is(err, ErrDrained)
		if err == nil || ctx.Err() != nil || len(cids) == 1 && !drained {
			return conn, leave, err
		}
		if !b.pause(ctx, pause, drained) {
			return nil, nil, err
		}
	}
}

// pause waits before another round: for a change if nothing else can help. It
// reports whether there is time for one.
func (b *Balancer) pause(ctx context.Context, d time.Duration, forChange bool) bool {
	b.mu.Lock()
	changed := b.changed
	b.mu.Unlock()
	if forChange {
		d = time.Hour // ctx ends long before
	}
	timer := time.NewTimer(pacing.About(d))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-changed:
		return true
	case <-ctx.Done():
		return false
	}
}

// round tries each enclave once.
func (b *Balancer) round(ctx context.Context, cids []vsockconn.CID, dial DialFunc) (net.Conn, func(), error) {
	tried := make([]vsockconn.CID, 0, 8)
	var last error
	for {
		m := b.choose(cids, tried)
		if m == nil && last == nil {
			return nil, nil, fmt.Errorf("%w: %v", ErrDrained, cids)
		}
		if m == nil {
			return nil, nil, last
		}
		conn, err := attempt(ctx, m.cid, len(cids) > 1, dial)
		if err == nil {
			return conn, sync.OnceFunc(func() { b.leave(m) }), nil
		}
		b.leave(m)
		if ctx.Err() != nil {
			if last == nil {
				last = err
			}
			return nil, nil, last
		}
		b.failed(m, err)
		last, tried = err, append(tried, m.cid)
	}
}

func attempt(ctx context.Context, cid vsockconn.CID, others bool, dial DialFunc) (net.Conn, error) {
	if !others {
		return dial(ctx, cid, true)
	}
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	return dial(ctx, cid, false)
}

// choose counts a client in at the enclave that is best for it, of those that were
// not tried yet; nil if there is none.
func (b *Balancer) choose(cids, tried []vsockconn.CID) (best *member) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	for _, cid := range cids {
		m := b.member(cid)
		if m.drained || slices.Contains(tried, cid) {
			continue
		}
		if best == nil || m.betterThan(best, now, b.policy.SlowStart) {
			best = m
		}
	}
	if best == nil {
		return nil
	}
	b.turn++
	best.connections++
	best.taken++
	best.turn = b.turn
	return best
}

// leave says that a connection has ended.
func (b *Balancer) leave(m *member) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m.connections--
	if m.connections == 0 && m.drained {
		b.config.Log.Info("enclave drained: its last connection has ended", "cid", uint32(m.cid))
		b.wake()
	}
}

// AwaitIdle returns nil once the enclave has no connection, or why ctx ended.
func (b *Balancer) AwaitIdle(ctx context.Context, cid vsockconn.CID) error {
	for {
		b.mu.Lock()
		m, changed := b.members[cid], b.changed
		idle := m == nil || m.connections == 0
		b.mu.Unlock()
		if idle {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
