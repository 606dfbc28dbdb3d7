package statistics_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/corridor-enclave/corridor/bench/report"
	"github.com/corridor-enclave/corridor/bench/statistics"
)

func TestMedian(t *testing.T) {
	t.Parallel()
	if m := statistics.Median(nil); !math.IsNaN(m) {
		t.Errorf("of nothing: %v", m)
	}
	tests := []struct {
		values []float64
		want   float64
	}{
		{[]float64{7}, 7},
		{[]float64{9, 1}, 5},
		{[]float64{9, 1, 2}, 2},
		{[]float64{4, 3, 2, 1}, 2.5},
	}
	for _, tt := range tests {
		if got := statistics.Median(tt.values); got != tt.want {
			t.Errorf("Median(%v) = %v, want %v", tt.values, got, tt.want)
		}
	}
}

func TestSummarise(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		values []float64
		want   report.Summary
	}{
		{"one", []float64{5}, report.Summary{N: 1, Median: 5, Low: 5, High: 5}},
		{"all the same", []float64{5, 5, 5, 5}, report.Summary{N: 4, Median: 5, Low: 5, High: 5}},
		{"nothing happened", []float64{0, 0, 0}, report.Summary{N: 3}},
		{"five", []float64{104, 100, 102, 101, 103}, report.Summary{N: 5, Median: 102, Low: 100, High: 104, Spread: 2.0 / 102}},
		{"noisy", []float64{50, 100, 150, 200, 250}, report.Summary{N: 5, Median: 150, Low: 50, High: 250, Spread: 100.0 / 150, Noisy: true}},
	}
	for _, tt := range tests {
		if got := statistics.Summarise(tt.values, 1); got != tt.want {
			t.Errorf("%s: got %+v, want %+v", tt.name, got, tt.want)
		}
		if statistics.Summarise(tt.values, 7) != statistics.Summarise(tt.values, 7) {
			t.Errorf("%s: the same seed, another summary", tt.name)
		}
	}
}

// TestIntervalCovers draws from a distribution whose median is known: nine of ten
// intervals must hold it, although each is made of ten samples only.
func TestIntervalCovers(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	covered := 0
	const trials = 200
	for i := range trials {
		values := make([]float64, 10)
		for j := range values {
			values[j] = math.Exp(rng.NormFloat64()) // median 1, with a long tail
		}
		s := statistics.Summarise(values, uint64(i))
		if s.Low <= 1 && 1 <= s.High {
			covered++
		}
	}
	if covered < trials*90/100 {
		t.Errorf("%d of %d intervals hold the median", covered, trials)
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	base := []float64{100, 101, 99, 102, 98, 100.5}
	scaled := func(f float64) []float64 {
		out := make([]float64, len(base))
		for i, v := range base {
			out[i] = v * f
		}
		return out
	}
	tests := []struct {
		name         string
		a, b         []float64
		enough, real bool
	}{
		{"too few to tell", []float64{1, 1, 1, 1}, []float64{9, 9, 9, 9}, false, false},
		{"against itself", base, base, true, false},
		{"below the floor", base, scaled(1.05), true, false},
		{"slower", base, scaled(1.2), true, true},
		{"faster", base, scaled(0.8), true, true},
		{"nothing and nothing", make([]float64, 6), make([]float64, 6), true, false},
		{"something from nothing", make([]float64, 6), base, true, true},
		{"apart, but scattered", []float64{100, 200, 50, 300, 80, 150}, []float64{150, 300, 75, 450, 120, 225}, true, false},
	}
	for _, tt := range tests {
		d := statistics.Compare(tt.a, tt.b, 0.08, 1)
		if d.Enough != tt.enough || d.Real != tt.real {
			t.Errorf("%s: %+v, want enough %v, real %v", tt.name, d, tt.enough, tt.real)
		}
		if !(d.Low <= d.Ratio && d.Ratio <= d.High) || d.P < 0 || d.P > 1 {
			t.Errorf("%s: %+v contradicts itself", tt.name, d)
		}
	}
}

// TestCompareProbability holds p to the published tables of the test.
func TestCompareProbability(t *testing.T) {
	t.Parallel()
	tests := []struct {
		a, b []float64
		want float64
	}{
		{[]float64{1, 2, 3, 4, 5}, []float64{6, 7, 8, 9, 10}, 2.0 / 252},   // U = 0
		{[]float64{1, 2, 3, 4, 6}, []float64{5, 7, 8, 9, 10}, 4.0 / 252},   // U = 1
		{[]float64{1, 2, 3}, []float64{4, 5, 6}, 2.0 / 20},                 // U = 0
		{[]float64{1, 3, 5, 7, 9}, []float64{2, 4, 6, 8, 10}, 174.0 / 252}, // U = 10
	}
	for _, tt := range tests {
		for _, d := range []statistics.Difference{statistics.Compare(tt.a, tt.b, 0, 1), statistics.Compare(tt.b, tt.a, 0, 1)} {
			if math.Abs(d.P-tt.want) > 1e-9 {
				t.Errorf("%v, %v: p = %v, want %v", tt.a, tt.b, d.P, tt.want)
			}
		}
	}
}

// TestCompareKeepsSilent compares three hundred times what is the same, with the
// noise of a shared machine: fewer than one in a hundred may be called different.
// And it finds what is a quarter slower in most cases.
func TestCompareKeepsSilent(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 4))
	draw := func(scale float64) []float64 {
		values := make([]float64, 8)
		for i := range values {
			values[i] = scale * math.Exp(0.08*rng.NormFloat64())
		}
		return values
	}
	const trials = 300
	invented, found := 0, 0
	for i := range trials {
		if statistics.Compare(draw(100), draw(100), 0.08, uint64(i)).Real {
			invented++
		}
		if statistics.Compare(draw(100), draw(125), 0.08, uint64(i)).Real {
			found++
		}
	}
	if invented >= trials/100 || found < trials*9/10 {
		t.Errorf("%d differences invented, %d found, of %d each", invented, found, trials)
	}
}

func TestPairedRatio(t *testing.T) {
	t.Parallel()
	for _, a := range [][]float64{nil, {0, 0}} {
		if s, ok := statistics.PairedRatio(a, []float64{1, 2}, 1); ok {
			t.Errorf("by %v: %+v", a, s)
		}
	}
	// The machine halves its speed twice; what is compared hardly notices.
	a := []float64{100, 50, 25, 100, 0}
	b := []float64{200, 100, 50, 210, 7}
	if s, ok := statistics.PairedRatio(a, b, 1); !ok || s.N != 4 || s.Median != 2 || s.Low != 2 || s.High > 2.1 || s.Noisy {
		t.Errorf("%+v, %v", s, ok)
	}
}
