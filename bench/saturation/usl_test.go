package saturation_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/corridor-enclave/corridor/bench/report"
	"github.com/corridor-enclave/corridor/bench/saturation"
)

// following returns points of the law, each wrong by up to the given share.
func following(law report.USL, wrong float64) []report.Point {
	random := rand.New(rand.NewPCG(1, 2))
	var points []report.Point
	for n := 1.0; n <= 512; n *= 2 {
		points = append(points, report.Point{X: n, Rate: saturation.Predict(law, n) * (1 + wrong*(2*random.Float64()-1))})
	}
	return points
}

func TestFitFindsTheLaw(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		law   report.USL
		wrong float64
		near  float64 // relative, of each parameter
	}{
		{name: "linear", law: report.USL{Lambda: 1000}, near: 1e-9},
		{name: "contention", law: report.USL{Lambda: 8000, Alpha: 0.25}, near: 1e-9},
		{name: "coherence", law: report.USL{Lambda: 3000, Beta: 0.002}, near: 1e-9},
		{name: "both", law: report.USL{Lambda: 5000, Alpha: 0.05, Beta: 0.0002}, near: 1e-6},
		{name: "both, measured within 3 %", law: report.USL{Lambda: 5000, Alpha: 0.05, Beta: 0.0002}, wrong: 0.03, near: 0.15},
	}
	for _, tt := range tests {
		got, err := saturation.Fit(following(tt.law, tt.wrong))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		close := func(a, b float64) bool { return math.Abs(a-b) <= tt.near*max(b, 1e-3) }
		if !close(got.Lambda, tt.law.Lambda) || !close(got.Alpha, tt.law.Alpha) || !close(got.Beta, tt.law.Beta) {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.law)
		}
		if got.RSquared < 0.99 {
			t.Errorf("%s: only %g is explained", tt.name, got.RSquared)
		}
	}
}

// TestFitIsNeverNegative: a rate that grows faster than the load has no
// contention below zero, but a bad fit.
func TestFitIsNeverNegative(t *testing.T) {
	t.Parallel()
	var points []report.Point
	for n := 1.0; n <= 64; n *= 2 {
		points = append(points, report.Point{X: n, Rate: 100 * n * n})
	}
	got, err := saturation.Fit(points)
	if err != nil || got.Alpha != 0 || got.Beta != 0 || !(got.Lambda > 0) || got.RSquared > 0.9 {
		t.Errorf("Fit = %+v, %v", got, err)
	}
}

func TestFitNeedsThreePoints(t *testing.T) {
	t.Parallel()
	points := []report.Point{{X: 1, Rate: 1}, {X: 2, Rate: 2}, {X: 2, Rate: 2}, {X: 4, Rate: 0}, {X: 0, Rate: 5}}
	if got, err := saturation.Fit(points); err == nil {
		t.Errorf("Fit = %+v of two usable points", got)
	}
}

func TestBest(t *testing.T) {
	t.Parallel()
	law := report.USL{Lambda: 5000, Alpha: 0.1, Beta: 0.001}
	if got := saturation.Best(law); math.Abs(got-30) > 1e-9 {
		t.Errorf("Best = %g, want 30", got)
	}
	if !math.IsInf(saturation.Best(report.USL{Lambda: 1}), 1) {
		t.Error("a linear law has a best concurrency")
	}
}
