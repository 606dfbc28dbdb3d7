package revproxy

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

var errTest = errors.New("refused")

func TestShares(t *testing.T) {
	t.Parallel()
	const start = 10 * time.Second
	share := func(h *health) int64 { return h.share(time.Now()) }
	tests := []struct {
		name string
		do   func(*health)
		want int64
	}{
		{"refuses", func(h *health) { h.dialed(errTest) }, 0},
		{"has rested", func(h *health) { h.dialed(errTest); time.Sleep(firstRest) }, whole / 20},
		{"refuses on and on", func(h *health) {
			for range 20 {
				h.dialed(errTest)
			}
			time.Sleep(maxRest - 1)
		}, 0},
		{"accepts again", func(h *health) { h.dialed(errTest); h.dialed(nil); time.Sleep(start / 2) }, whole / 2},
		{"has long been back", func(h *health) { h.dialed(errTest); h.dialed(nil); time.Sleep(start) }, whole},
		{"two exchanges were cut", func(h *health) { h.answered(false); h.answered(false) }, whole},
		{"one between was answered", func(h *health) {
			h.answered(false)
			h.answered(false)
			h.answered(true)
			h.answered(false)
		}, whole},
		{"three were cut", func(h *health) {
			for range strikesOut {
				h.answered(false)
			}
			h.dialed(nil) // it accepts, but that is not enough
		}, 0},
		{"one bad probe", func(h *health) { h.probed(false) }, whole},
		{"two bad probes", func(h *health) { h.probed(false); h.probed(false); time.Sleep(time.Hour) }, 0},
		{"a good one behind them", func(h *health) { h.probed(false); h.probed(false); h.probed(true) }, whole / 20},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := &health{slowStart: start}
				if got := share(h); got != whole {
					t.Errorf("%d at the beginning", got)
				}
				if test.do(h); share(h) != test.want {
					t.Errorf("%d, want %d", share(h), test.want)
				}
			})
		})
	}
}

// What counts as one death, and against whom.
func TestDeaths(t *testing.T) {
	t.Parallel()
	a, b := &member{}, &member{}
	begin := time.Now()
	at := func(ms int) time.Time { return begin.Add(time.Duration(ms) * time.Millisecond) }
	tests := []struct {
		name string
		do   func(*quarantine)
		want bool // request 1 is kept away
	}{
		{"nobody died", func(q *quarantine) { q.cutOff(1, a, at(0)); q.cutOff(1, a, at(5000)) }, false},
		{"one death", func(q *quarantine) { q.cutOff(1, a, at(0)); q.died(a, at(1)) }, false},
		{"one death twice heard of", func(q *quarantine) {
			q.cutOff(1, a, at(0))
			q.died(a, at(1))
			q.cutOff(1, a, at(2))
			q.died(a, at(3))
		}, false},
		{"two", func(q *quarantine) {
			q.cutOff(1, a, at(0))
			q.died(a, at(1))
			q.died(a, at(5000))
			q.cutOff(1, a, at(5001))
		}, true},
		{"two in a moment", func(q *quarantine) {
			q.cutOff(1, a, at(0))
			q.died(a, at(1))
			q.returned(a)
			q.cutOff(1, a, at(2))
			q.died(a, at(3))
		}, true},
		{"one of each app", func(q *quarantine) {
			q.cutOff(1, a, at(0))
			q.died(a, at(1))
			q.cutOff(1, b, at(2))
			q.died(b, at(3))
		}, true},
		{"it was with the other app", func(q *quarantine) {
			q.cutOff(1, b, at(0))
			q.died(a, at(1))
			q.cutOff(1, b, at(5000))
			q.died(a, at(5001))
		}, false},
		{"long before", func(q *quarantine) {
			q.cutOff(1, a, at(0))
			q.died(a, at(5000))
			q.cutOff(1, a, at(10000))
			q.died(a, at(15000))
		}, false},
		{"answered between", func(q *quarantine) {
			q.cutOff(1, a, at(0))
			q.died(a, at(1))
			q.acquit(1)
			q.cutOff(1, a, at(5000))
			q.died(a, at(5001))
		}, false},
		{"too long ago", func(q *quarantine) {
			q.cutOff(1, a, at(0))
			q.died(a, at(1))
			later := begin.Add(2 * sentence)
			q.cutOff(1, a, later)
			q.died(a, later)
		}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			q := newQuarantine()
			test.do(q)
			if got := q.keepsAway(1, q.death); got != test.want {
				t.Errorf("kept away: %v", got)
			}
			if q.keepsAway(1, q.death.Add(sentence+1)) {
				t.Error("it is so for ever")
			}
		})
	}
}

// Whoever asks for many things cannot fill the memory.
func TestQuarantineIsBounded(t *testing.T) {
	t.Parallel()
	q, app, now := newQuarantine(), &member{}, time.Now()
	q.cutOff(7, app, now)
	q.died(app, now)
	q.returned(app)
	q.cutOff(7, app, now.Add(1))
	q.died(app, now.Add(1))
	for i := range uint64(3 * maxSuspects) {
		q.cutOff(100+i, app, now.Add(2)) // of the same death
	}
	q.returned(app)
	for i := range uint64(3 * maxSuspects) {
		q.cutOff(100+i, app, now.Add(3)) // of none
	}
	if len(q.suspects) > maxSuspects || len(q.cut) > maxSuspects || int(q.known.Load()) != len(q.suspects) {
		t.Errorf("%d suspects (%d), %d witnesses", len(q.suspects), q.known.Load(), len(q.cut))
	}
	if !q.keepsAway(7, now.Add(3)) {
		t.Error("the guilty one was forgotten first")
	}
	keys := map[string]uint64{}
	for _, parts := range [][3]string{{"GET", "a", "/"}, {"GET", "a", "/?"}, {"GET", "b", "/"}, {"PUT", "a", "/"}, {"GETa", "", "/"}} {
		keys[fmt.Sprint(q.keyOf(parts[0], parts[1], parts[2], 0))]++
	}
	if len(keys) != 5 || q.keyOf("GET", "a", "/", 1) == q.keyOf("GET", "a", "/", 2) {
		t.Error("different requests are one")
	}
}
