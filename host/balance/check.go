package balance

import (
	"context"
	"time"
)

// idleLook is how often Run looks for something to do when there are no checks; a
// policy that has some wakes it.
const idleLook = time.Hour

// Run checks the enclaves until ctx ends, and returns nil when the last check is
// over. Dial works without.
func (b *Balancer) Run(ctx context.Context) error {
	defer b.checking.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-b.retuned:
		case <-timer.C:
		}
		timer.Reset(b.checkAll(ctx))
	}
}

// checkAll starts a check of each enclave that is due, and returns how long until
// the next round.
func (b *Balancer) checkAll(ctx context.Context) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.config.Check == nil || b.policy.Interval <= 0 {
		return idleLook
	}
	for _, m := range b.members {
		if m.watched && !m.asked {
			m.asked = true
			patience := b.policy.Interval
			b.checking.Go(func() { b.check(ctx, m, patience) })
		}
	}
	return b.policy.Interval
}

func (b *Balancer) check(ctx context.Context, m *member, patience time.Duration) {
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := b.config.Check(bounded, m.cid)
	b.mu.Lock()
	defer b.mu.Unlock()
	m.asked = false
	switch {
	case ctx.Err() != nil || !m.watched:
	case err != nil:
		b.missed(m, err)
	default:
		b.passed(m)
	}
}

// passed notes a check that went well; the caller holds the lock.
func (b *Balancer) passed(m *member) {
	m.missed = 0
	if m.health == up {
		return
	}
	m.passed++
	if m.passed >= b.policy.Rise {
		now := time.Now()
		m.become(up, now)
		m.rose = now
		b.config.Log.Info("enclave is up", "cid", uint32(m.cid), "slow_start", b.policy.SlowStart.String())
		b.wake()
	}
}

// missed notes a check or an attempt that failed; the caller holds the lock.
func (b *Balancer) missed(m *member, err error) {
	m.passed = 0
	m.reason = err.Error()
	if m.health == down {
		return
	}
	m.missed++
	if m.missed >= b.policy.Fall {
		m.become(down, time.Now())
		b.config.Log.Warn("enclave is down", "cid", uint32(m.cid), "err", err)
	}
}

// failed notes an attempt to reach an enclave. Only checks bring one back, so that
// without them it takes none down.
func (b *Balancer) failed(m *member, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m.failures++
	if m.watched {
		b.missed(m, err)
	}
}
