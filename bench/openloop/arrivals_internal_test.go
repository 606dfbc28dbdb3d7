package openloop

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestArrivalsThatCannotBe(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		in   Arrivals
		want string
	}{
		{name: "no process", in: Arrivals{Rate: 1}, want: "none of uniform"},
		{name: "no rate", in: Arrivals{Process: Uniform}, want: "0 requests a second"},
		{name: "a rate below zero", in: Arrivals{Process: Uniform, Rate: -1}, want: "-1 requests"},
		{name: "a rate that is no number", in: Arrivals{Process: Uniform, Rate: math.NaN()}, want: "NaN requests"},
		{name: "a rate beyond reason", in: Arrivals{Process: Uniform, Rate: 1e9}, want: "1e+09 requests"},
		{name: "a burst of one", in: Arrivals{Process: Burst, Rate: 1, Group: 1}, want: "burst of 1"},
	}
	for _, tt := range tests {
		if err := tt.in.check(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: check() = %v, want %q in it", tt.name, err, tt.want)
		}
	}
}

func TestUniformArrivalsDoNotDrift(t *testing.T) {
	t.Parallel()
	next := Arrivals{Process: Uniform, Rate: 3}.schedule() // a third of a second is no whole number
	var last time.Duration
	for range 3_000_001 {
		last = next()
	}
	if want := 1_000_000 * time.Second; last != want {
		t.Errorf("arrival 3,000,000 at 3 a second is at %v, want %v", last, want)
	}
}

func TestBurstsComeTogether(t *testing.T) {
	t.Parallel()
	next := Arrivals{Process: Burst, Rate: 10, Group: 3}.schedule()
	for i, want := range []time.Duration{0, 0, 0, 300, 300, 300, 600} {
		if got := next(); got != want*time.Millisecond {
			t.Errorf("arrival %d at %v, want %v", i, got, want*time.Millisecond)
		}
	}
}

// Distances of a Poisson process have their mean as standard deviation, and the
// seed decides all of them.
func TestPoissonArrivals(t *testing.T) {
	t.Parallel()
	const n, rate = 200_000, 1000
	a := Arrivals{Process: Poisson, Rate: rate, Seed: 7}
	next, again := a.schedule(), a.schedule()
	a.Seed++
	other := a.schedule()
	var last time.Duration
	var sum, squares float64
	different := false
	for range n {
		at := next()
		if at < last {
			t.Fatalf("an arrival at %v behind one at %v", at, last)
		}
		if same := again(); same != at {
			t.Fatalf("the same seed gave %v and %v", at, same)
		}
		different = different || other() != at
		apart := (at - last).Seconds() * rate
		sum += apart
		squares += apart * apart
		last = at
	}
	mean := sum / n
	if deviation := math.Sqrt(squares/n - mean*mean); math.Abs(mean-1) > 0.02 || math.Abs(deviation-1) > 0.02 {
		t.Errorf("distances have mean %.3f and deviation %.3f of 1/rate, want 1 and 1", mean, deviation)
	}
	if !different {
		t.Error("another seed gave the same arrivals")
	}
}
