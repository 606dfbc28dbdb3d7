package pacing_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/corridor-enclave/corridor/tapstack/pacing"
)

func TestPause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		done := make(chan struct{})
		time.AfterFunc(3*time.Second, func() { close(done) })
		for _, tt := range []struct {
			d, took time.Duration
			whole   bool
		}{{2 * time.Second, 2 * time.Second, true}, {2 * time.Second, time.Second, false}, {time.Hour, 0, false}} {
			start := time.Now()
			if whole := pacing.Pause(done, tt.d); whole != tt.whole || time.Since(start) != tt.took {
				t.Errorf("Pause of %s = %t after %s; want %t after %s", tt.d, whole, time.Since(start), tt.whole, tt.took)
			}
		}
	})
}

func TestAbout(t *testing.T) {
	t.Parallel()
	seen := make(map[time.Duration]bool)
	for range 100 {
		d := pacing.About(time.Second)
		if d < time.Second/2 || d >= time.Second {
			t.Errorf("about a second is %s", d)
		}
		seen[d] = true
	}
	if len(seen) < 2 {
		t.Error("it is always the same")
	}
}
