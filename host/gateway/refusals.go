package gateway

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// logEvery is the shortest time between two lines of the same kind that an
// enclave or a client can cause at will.
const logEvery = 10 * time.Second

// A sometimes lets one event through per logEvery and counts the others. The
// zero value is ready.
type sometimes struct {
	mu      sync.Mutex
	next    time.Time
	skipped int
}

// now reports whether the event at t may be logged, and how many before it were
// not.
func (s *sometimes) now(t time.Time) (skipped int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.Before(s.next) {
		s.skipped++
		return 0, false
	}
	skipped, s.skipped = s.skipped, 0
	s.next = t.Add(logEvery)
	return skipped, true
}

// refusals count what one enclave did not get, by cause, and log each cause at a
// bounded rate: a flood of one does not hide another.
type refusals struct {
	log    *slog.Logger
	counts [causes]atomic.Uint64
	lines  [causes]sometimes
}

// note counts one refusal. The log line is rare, the counter is exact. what is
// an address or a name.
func (r *refusals) note(protocol, what string, no refusal) {
	r.counts[no.cause].Add(1)
	if skipped, ok := r.lines[no.cause].now(time.Now()); ok {
		r.log.Warn("flow of the enclave refused", "protocol", protocol, "destination", what, "cause", no.cause.String(), "why", no.why, "not_logged", skipped)
	}
}

// byCause returns the counters; every cause is among them.
func (r *refusals) byCause() map[string]uint64 {
	all := make(map[string]uint64, causes-1)
	for c := causeNone + 1; c < causes; c++ {
		all[c.String()] = r.counts[c].Load()
	}
	return all
}
