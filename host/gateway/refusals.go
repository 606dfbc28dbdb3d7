package gateway

import (
	"log/slog"
	"sync/atomic"

	"github.com/corridor-enclave/corridor/tapstack/sometimes"
)

// refusals count what one enclave did not get, by cause, and log each cause at a
// bounded rate: a flood of one does not hide another.
type refusals struct {
	counts [causes]atomic.Uint64
	lines  [causes]sometimes.Logger
}

func newRefusals(log *slog.Logger) *refusals {
	r := &refusals{}
	for c := range r.lines {
		r.lines[c].Log = log
	}
	return r
}

// note counts one refusal. The log line is rare, the counter is exact. what is
// an address or a name.
func (r *refusals) note(protocol, what string, no refusal) {
	r.counts[no.cause].Add(1)
	r.lines[no.cause].Warn("flow of the enclave refused", "protocol", protocol, "destination", what, "cause", no.cause.String(), "why", no.why)
}

// byCause returns the counters; every cause is among them.
func (r *refusals) byCause() map[string]uint64 {
	all := make(map[string]uint64, causes-1)
	for c := causeNone + 1; c < causes; c++ {
		all[c.String()] = r.counts[c].Load()
	}
	return all
}
