// Package openloop loads an HTTP server on a schedule that does not wait for
// answers, as users do not, and measures each answer from the time at which its
// request should have started. It can also load in a closed loop, where the next
// request waits for the last answer: that finds capacity, but says nothing true
// about latency. It judges nothing; bench/saturation and bench/report do.
package openloop

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// MaxConnections bounds a load: more is no longer a measurement of the server but
// of this machine's file descriptors.
const MaxConnections = 16384

// A Load is how long to load a target and by how many connections.
type Load struct {
	// Arrivals say when requests start. The zero value means a closed loop: each
	// connection sends its next request when the last was answered.
	Arrivals    Arrivals
	Connections int
	Warmup      time.Duration // requests that start before are sent and not counted
	Duration    time.Duration // behind Warmup
	// Patience is how long requests of an open loop that are due may wait for a
	// free connection after the end of Duration.
	Patience time.Duration
	// Sleep waits that long, or less; nil means time.Sleep. PreciseSleep is better,
	// where its caller has a thread to spare.
	Sleep func(time.Duration)
}

func (l Load) closed() bool { return l.Arrivals == Arrivals{} }

func (l Load) check() error {
	var errs []error
	if l.Connections < 1 || l.Connections > MaxConnections {
		errs = append(errs, fmt.Errorf("openloop: %d connections are outside of 1 to %d", l.Connections, MaxConnections))
	}
	if l.Duration <= 0 || l.Warmup < 0 || l.Patience < 0 {
		errs = append(errs, fmt.Errorf("openloop: a load of %v behind %v of warm-up, with patience of %v", l.Duration, l.Warmup, l.Patience))
	}
	if !l.closed() {
		errs = append(errs, l.Arrivals.check())
	}
	return errors.Join(errs...)
}

const (
	// maxNap bounds one sleep, so that the end of a context is seen.
	maxNap = 50 * time.Millisecond
	// afterRefusal is how long a connection of a closed loop waits when it could
	// not be opened; without a pause a dead server would be hammered.
	afterRefusal = 10 * time.Millisecond
)

// A run is one load under way.
type run struct {
	load  Load
	start time.Time
	tally *tally
}

// Run loads the target and returns what came of it. Requests that fail are part
// of the result and no error. When ctx ends Run returns its cause and no result.
// All connections are closed and all goroutines gone when it returns.
func Run(ctx context.Context, t Target, l Load) (*Result, error) {
	d, err := t.check()
	if err = errors.Join(err, l.check()); err != nil {
		return nil, err
	}
	if l.Sleep == nil {
		l.Sleep = time.Sleep
	}
	r := &run{load: l, start: time.Now(), tally: newTally()}
	due := make(chan time.Duration)
	sessions := d.sessions(l.Connections)
	var workers sync.WaitGroup
	for _, s := range sessions {
		workers.Go(func() {
			if l.closed() {
				r.closedLoop(ctx, s)
			} else {
				r.openLoop(ctx, s, due)
			}
		})
	}
	if !l.closed() {
		r.pace(ctx, due)
		close(due)
	}
	workers.Wait()
	for _, s := range sessions {
		s.close()
	}
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("openloop: stopped: %w", err)
	}
	return r.tally.result(l.Warmup, l.Duration), nil
}

func (r *run) now() time.Duration { return time.Since(r.start) }

// pace hands each arrival to a free connection when its time has come. Where none
// is free it waits, and all arrivals behind this one are then handed over late;
// but each of them carries the time at which it should have been.
func (r *run) pace(ctx context.Context, due chan<- time.Duration) {
	next := r.load.Arrivals.schedule()
	end := r.load.Warmup + r.load.Duration
	giveUp := time.NewTimer(end + r.load.Patience)
	defer giveUp.Stop()
	for at := next(); at < end; at = next() {
		if !r.wait(ctx, at) {
			return
		}
		select {
		case due <- at:
			continue
		default: // all connections are busy
		}
		select {
		case due <- at:
		case <-ctx.Done():
			return
		case <-giveUp.C:
			for now := r.now(); at < end; at = next() {
				if at >= r.load.Warmup {
					r.tally.unsent(at, now)
				}
			}
			return
		}
	}
}

// wait returns at that time, or false when ctx has ended.
func (r *run) wait(ctx context.Context, at time.Duration) bool {
	left := at - r.now()
	if left <= 0 {
		return ctx.Err() == nil
	}
	for ; left > 0; left = at - r.now() {
		if ctx.Err() != nil {
			return false
		}
		r.load.Sleep(min(left, maxNap))
	}
	if at >= r.load.Warmup {
		r.tally.late(-left)
	}
	return true
}

func (r *run) openLoop(ctx context.Context, s session, due <-chan time.Duration) {
	for intended := range due {
		r.exchange(ctx, s, intended, r.now())
	}
}

// closedLoop sends at least one request that counts, however slow the target is.
func (r *run) closedLoop(ctx context.Context, s session) {
	end := r.load.Warmup + r.load.Duration
	counted := false
	for now := r.now(); (now < end || !counted) && ctx.Err() == nil; now = r.now() {
		counted = now >= r.load.Warmup
		if r.exchange(ctx, s, now, now) == DialFailed {
			r.load.Sleep(afterRefusal)
		}
	}
}

// exchange sends one request and counts it, unless it belongs to the warm-up or
// was cut short by the end of ctx. It returns how it failed, empty if it did not.
func (r *run) exchange(ctx context.Context, s session, intended, sent time.Duration) Class {
	n, err := s.exchange(ctx)
	o := outcome{intended: intended, sent: sent, done: r.now(), bytes: n}
	if err != nil {
		o.failed, o.text = classOf(err), err.Error()
	}
	if intended >= r.load.Warmup && ctx.Err() == nil {
		r.tally.add(o)
	}
	return o.failed
}
