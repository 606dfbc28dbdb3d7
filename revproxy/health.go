package revproxy

import (
	"sync"
	"sync/atomic"
	"time"
)

// How long an app that does not work is left alone: twice as long after each
// failure, up to a limit. Then one request tries it.
const (
	firstRest = 50 * time.Millisecond
	maxRest   = 5 * time.Second
)

// strikesOut is how many exchanges in a row must end without a byte of an answer
// until an app rests that accepts connections.
const strikesOut = 3

// probesOut is how many probes in a row must fail until an app is taken for ill.
const probesOut = 2

// A health is what is known of whether an app works, by those who use it (it
// refuses connections, or ends them without an answer) and by those who ask it:
//
//	          refuses, or strikesOut, or probesOut
//	works ──────────────────────────────────────────► resting
//	  ▲                                                 │ time is over, or it
//	  └──────── SlowStart is over ──── coming back ◄────┘ accepts, or answers a probe
//
// An app that comes back gets a growing share of what it would.
type health struct {
	slowStart time.Duration
	strikes   atomic.Int32 // exchanges in a row without an answer

	mu       sync.Mutex
	refusals int       // in a row
	probes   int       // that failed, in a row
	rests    time.Time // until when it is left alone
	back     time.Time // when it came back; zero: it was never away
}

// dialed takes down whether the app could be connected to. It reports whether that
// is another thing than the last time.
func (h *health) dialed(err error) (news bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if err == nil {
		if news = h.refusals > 0; news {
			h.refusals, h.rests, h.back = 0, time.Time{}, now
		}
		return news
	}
	h.rest(now, h.refusals)
	h.refusals++
	return h.refusals == 1
}

func (h *health) rest(now time.Time, before int) {
	d := maxRest
	if before < 7 {
		d = min(firstRest<<before, maxRest)
	}
	h.rests = now.Add(d)
	h.back = h.rests // it comes back by itself, if nobody says so before
}

// answered takes down whether an exchange had an answer at all.
func (h *health) answered(ok bool) {
	if ok {
		if h.strikes.Load() != 0 {
			h.strikes.Store(0)
		}
		return
	}
	if n := int(h.strikes.Add(1)); n >= strikesOut {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.rest(time.Now(), n-strikesOut)
	}
}

// probed takes down what a probe found.
func (h *health) probed(ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case !ok:
		h.probes++
	case h.probes >= probesOut:
		h.probes, h.back = 0, time.Now()
	default:
		h.probes = 0
	}
}

// refuses reports whether the app did not accept the last connection.
func (h *health) refuses() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.refusals > 0
}

// share is how much of its requests an app should get: 0 while it rests, up to
// whole otherwise.
func (h *health) share(now time.Time) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch since := now.Sub(h.back); {
	case h.probes >= probesOut, now.Before(h.rests):
		return 0
	case !h.back.IsZero() && since < h.slowStart:
		return max(int64(since)*whole/int64(h.slowStart), whole/20)
	}
	return whole
}

// whole is the share of an app that works.
const whole = 1000
