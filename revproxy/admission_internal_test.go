package revproxy

import (
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Who would wait in vain is told so at once: as many wait as get room in time.
func TestWaitingInVain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const each = 100 * time.Millisecond
		a := newAdmission(Config{MaxConcurrent: 1, MaxQueued: 100, QueueTimeout: 5 * each})
		nobody := netip.Addr{}
		var served, refused int
		var late atomic.Int32
		results := make(chan bool, 1000)
		ask := func() {
			begin := time.Now()
			_, ok := a.enter(t.Context(), nobody)
			if !ok && time.Since(begin) > 0 {
				late.Add(1)
			}
			results <- ok
			if ok {
				time.Sleep(each)
				a.leave(nobody)
			}
		}
		for range 200 { // one in 25 ms, four times of what there is room for
			go ask()
			time.Sleep(each / 4)
			synctest.Wait()
		}
		time.Sleep(time.Minute)
		for range 200 {
			if <-results {
				served++
			} else {
				refused++
			}
		}
		if served < 50 || refused < 140 {
			t.Errorf("%d served, %d refused", served, refused)
		}
		if late.Load() > 20 { // of those who came before the pace was known
			t.Errorf("%d of %d were refused late", late.Load(), refused)
		}
		// It is forgotten when the crowd is gone.
		if _, ok := a.enter(t.Context(), nobody); !ok {
			t.Error("no room when nobody is there")
		}
	})
}
