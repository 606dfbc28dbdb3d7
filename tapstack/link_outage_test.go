package tapstack_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corridor-enclave/corridor/tapstack"
)

func TestLinkBacksOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const failures = 60
		refused := errors.New("nobody listens")
		var attempts []time.Time
		r := newRig(t, func(r *rig, c *tapstack.LinkConfig) {
			c.Dial = func(ctx context.Context) (net.Conn, error) {
				attempts = append(attempts, time.Now())
				if len(attempts) <= failures {
					return nil, refused
				}
				return r.dial(ctx)
			}
		})
		r.acceptUp()
		if len(attempts) != failures+1 {
			t.Fatalf("%d attempts, want %d", len(attempts), failures+1)
		}
		longest, distinct := time.Duration(0), map[time.Duration]bool{}
		for i := range failures {
			gap := attempts[i+1].Sub(attempts[i])
			limit := min(time.Second, 20*time.Millisecond<<min(i, 10))
			if gap < 10*time.Millisecond || gap > limit {
				t.Errorf("delay %d is %v, want 10ms to %v", i, gap, limit)
			}
			longest, distinct[gap] = max(longest, gap), true
		}
		if longest < 500*time.Millisecond {
			t.Errorf("the longest of %d delays is %v: it does not back off", failures, longest)
		}
		if len(distinct) < failures/2 {
			t.Errorf("only %d of %d delays differ: there is no jitter", len(distinct), failures)
		}
		if r.log.count("nobody listens") != 1 {
			t.Errorf("the error of one outage is not logged once:\n%s", r.log)
		}
		if r.log.count("link is up") != 1 || r.log.count("failures=60") != 1 {
			t.Errorf("the recovery is not logged with what it took:\n%s", r.log)
		}
	})
}

// Each outage is told anew, and one that a hostile host fills with ever new
// errors does not fill the log.
func TestLinkLogsEachOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		for range 2 {
			r.acceptUp().Close()
			r.await("the link is down", func(s tapstack.LinkStatus) bool { return !s.Connected })
		}
		if got := r.log.count("the host closed the link"); got != 2 {
			t.Errorf("two outages are told %d times:\n%s", got, r.log)
		}
		for i := range 50 {
			h := r.accept()
			h.raw([]byte{byte(i), 200}) // a new length each time
			h.awaitEnd()
		}
		if got := r.log.count("frame size out of range"); got > 8 {
			t.Errorf("one outage is told in %d lines, want at most 8", got)
		}
	})
}

// A link that was up for long starts again at the shortest delay; one that
// flaps does not.
func TestLinkBackoffStartsAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		for range 8 {
			r.accept().Close()
		}
		h := r.acceptUp()
		<-time.After(2 * time.Second)
		h.Close()
		lost := time.Now()
		r.acceptUp()
		if took := time.Since(lost) - 50*time.Millisecond; took > 20*time.Millisecond+time.Millisecond {
			t.Errorf("first delay after a long time up is %v, want at most 20ms", took)
		}
	})
}

// TestLinkBackoffOutlastsShortSessions: a host that accepts the link and drops it
// within a second is not asked any faster than one that refuses it.
func TestLinkBackoffOutlastsShortSessions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		longest := time.Duration(0)
		for range 40 {
			h := r.acceptUp()
			<-time.After(900 * time.Millisecond)
			h.Close()
			lost := time.Now()
			h = r.accept()
			longest = max(longest, time.Since(lost))
			h.Close() // before it is up
		}
		if longest < 500*time.Millisecond {
			t.Errorf("the longest of 40 delays is %v: sessions of 0.9 s start it again", longest)
		}
	})
}
