package impair

import (
	"math"
	"testing"
	"time"
)

func bad() Profile {
	return Profile{
		Delay: 20 * time.Millisecond, Jitter: 5 * time.Millisecond, Rate: 1_250_000, Queue: 30_000,
		Loss: 0.05, Duplicate: 0.03, Reorder: 0.02,
	}
}

// TestSameSeedSameSchedule: with the same packets at the same times the whole
// schedule is the same; with others at least the fates are.
func TestSameSeedSameSchedule(t *testing.T) {
	t.Parallel()
	one, again := line{dice: newDice(bad(), 42, 1)}, line{dice: newDice(bad(), 42, 1)}
	elsewhere := line{dice: newDice(bad(), 42, 1)}
	other, sibling := line{dice: newDice(bad(), 43, 1)}, line{dice: newDice(bad(), 42, 2)}
	differs := [2]int{}
	for i := range 20_000 {
		now, size := time.Duration(i)*700*time.Microsecond, 60+i*37%1454
		v := one.admit(now, size, false)
		if w := again.admit(now, size, false); w != v {
			t.Fatalf("packet %d: %+v and %+v by the same seed", i, v, w)
		}
		if w := elsewhere.admit(2*now, 100, false); w.fate != v.fate {
			t.Fatalf("packet %d: the fate depends on its time or size", i)
		}
		for j, l := range []*line{&other, &sibling} {
			if l.admit(now, size, false).fate != v.fate {
				differs[j]++
			}
		}
	}
	if differs[0] < 10_000 || differs[1] < 10_000 {
		t.Errorf("another seed changed %d of 20,000 fates, another number %d", differs[0], differs[1])
	}
}

func TestShares(t *testing.T) {
	t.Parallel()
	const n = 200_000
	p := bad()
	p.Rate, p.Queue = 0, 0
	l := line{dice: newDice(p, 1, 0)}
	var lost, twice, overtook float64
	var jitter time.Duration
	for range n {
		v := l.dice.next()
		jitter += v.jitter
		if v.lost {
			lost++
		}
		if v.twice {
			twice++
		}
		if v.overtakes {
			overtook++
		}
		if v.jitter < 0 || v.jitter >= p.Jitter {
			t.Fatalf("a jitter of %v", v.jitter)
		}
	}
	for _, x := range []struct {
		name      string
		got, want float64
	}{
		{"loss", lost / n, p.Loss}, {"duplicates", twice / n, p.Duplicate}, {"reordering", overtook / n, p.Reorder},
		{"jitter", jitter.Seconds() / n, p.Jitter.Seconds() / 2},
	} {
		if math.Abs(x.got/x.want-1) > 0.05 {
			t.Errorf("%s: %g, want %g", x.name, x.got, x.want)
		}
	}
}

func TestOrder(t *testing.T) {
	t.Parallel()
	p := Profile{Delay: 10 * time.Millisecond, Jitter: 10 * time.Millisecond, Reorder: 0.1}
	l := line{dice: newDice(p, 3, 0)}
	last, overtakers := time.Duration(0), 0
	for i := range 1000 {
		now := time.Duration(i) * time.Millisecond
		v := l.admit(now, 100, false)
		if v.overtakes {
			overtakers++
			if v.arrives != now {
				t.Fatalf("packet %d was to overtake and needs %v", i, v.arrives-now)
			}
			continue
		}
		if v.arrives < last || v.arrives < now+p.Delay {
			t.Fatalf("packet %d arrives at %v, behind one at %v", i, v.arrives, last)
		}
		last = v.arrives
	}
	if overtakers == 0 {
		t.Error("none overtook")
	}
}

func TestRateAndQueue(t *testing.T) {
	t.Parallel()
	p := Profile{Rate: 1_000_000, Queue: 5000, Delay: time.Second} // a byte a microsecond
	l := line{dice: newDice(p, 0, 0)}
	for i, tt := range []struct {
		now      time.Duration
		overflow bool
		arrives  time.Duration
	}{
		{0, false, time.Second + 1000*time.Microsecond},
		{0, false, time.Second + 2000*time.Microsecond},
		{0, false, time.Second + 3000*time.Microsecond},
		{0, false, time.Second + 4000*time.Microsecond},
		{0, false, time.Second + 5000*time.Microsecond},
		{0, true, 0},
		{500 * time.Microsecond, true, 0},
		{1000 * time.Microsecond, false, time.Second + 6000*time.Microsecond},
		{20 * time.Millisecond, false, time.Second + 21*time.Millisecond}, // idle since 6 ms
	} {
		if v := l.admit(tt.now, 1000, false); v.overflow != tt.overflow || v.arrives != tt.arrives {
			t.Errorf("packet %d: %+v, want overflow %t, arrival at %v", i, v, tt.overflow, tt.arrives)
		}
	}
	for range 20 {
		if l.admit(20*time.Millisecond, 1000, true).overflow {
			t.Fatal("a stream lost a piece")
		}
	}
}
