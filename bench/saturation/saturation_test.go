package saturation_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/bench/report"
	"github.com/corridor-enclave/corridor/bench/saturation"
)

// A target answers as a table says: rate, p99 in µs, and how many of 10,000 fail.
type target map[float64][3]float64

func (tg target) measure(_ context.Context, x float64) (saturation.Stage, error) {
	v, ok := tg[x]
	if !ok {
		return saturation.Stage{}, errors.New("unexpected load")
	}
	return saturation.Stage{Point: report.Point{Rate: v[0], P50: v[1] / 2, P99: v[1], Errors: int64(v[2])}, Sent: 10_000}, nil
}

func TestDoubling(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name       string
		target     target
		objective  time.Duration
		stages     int
		stop       string
		knee, peak float64
	}{
		{
			name:   "asked for no more",
			target: target{1: {100, 100, 0}, 2: {190, 120, 0}, 4: {300, 400, 0}, 8: {310, 900, 0}, 16: {320, 3000, 0}},
			stages: 5, stop: "the last stage", knee: 8, peak: 16,
		},
		{
			name:   "operations fail",
			target: target{1: {100, 100, 10}, 2: {190, 120, 10}, 4: {300, 400, 11}},
			stages: 3, stop: "11 of 10000 operations failed", knee: 4, peak: 4,
		},
		{
			name:   "the rate sinks",
			target: target{1: {100, 100, 0}, 2: {200, 120, 0}, 4: {170, 400, 0}, 8: {195, 900, 0}, 16: {150, 900, 0}, 32: {100, 900, 0}},
			stages: 6, stop: "second time", knee: 2, peak: 2,
		},
		{
			name:   "an objective of one's own",
			target: target{1: {100, 100, 0}, 2: {190, 120, 0}, 4: {300, 400, 0}, 8: {310, 900, 0}, 16: {320, 950, 0}},
			stages: 5, objective: 400 * time.Microsecond, stop: "the last stage", knee: 4, peak: 16,
		},
		{
			name:   "never within the objective",
			target: target{1: {100, 100, 0}, 2: {190, 120, 0}, 4: {300, 400, 0}, 8: {310, 900, 0}, 16: {320, 950, 0}},
			stages: 5, objective: time.Microsecond, stop: "the last stage", peak: 16,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var seen []float64
			s := saturation.Search{Objective: tt.objective, Done: func(p report.Point) { seen = append(seen, p.X) }}
			most := 31 // not a power of two
			if len(tt.target) > 5 {
				most = 512
			}
			c, err := s.Doubling(t.Context(), most, tt.target.measure)
			if err != nil {
				t.Fatal(err)
			}
			if len(c.Points) != tt.stages || len(seen) != tt.stages || !slices.IsSorted(seen) || !strings.Contains(c.Stop, tt.stop) || c.Axis != report.ByConnections {
				t.Errorf("%d stages %v by %q, stopped: %s; want %d, %q", len(c.Points), seen, c.Axis, c.Stop, tt.stages, tt.stop)
			}
			if value(c.Knee) != tt.knee || value(c.Peak) != tt.peak || c.Fit == nil {
				t.Errorf("knee %g, peak %g, fit %v; want %g and %g and a fit", value(c.Knee), value(c.Peak), c.Fit, tt.knee, tt.peak)
			}
		})
	}
}

func value(x *float64) float64 {
	if x == nil {
		return 0
	}
	return *x
}

func TestAroundGoesOnWhereItBreaks(t *testing.T) {
	t.Parallel()
	measure := func(_ context.Context, x float64) (saturation.Stage, error) {
		p := report.Point{Rate: min(x, 1000), P99: 500}
		if x > 1000 {
			p.P99, p.Errors = 1e6, 5000
		}
		return saturation.Stage{Point: p, Sent: 10_000}, nil
	}
	c, err := saturation.Search{Objective: time.Millisecond}.Around(t.Context(), 1000, measure)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Points) != 8 || c.Points[0].X != 500 || c.Points[7].X != 1200 || value(c.Knee) != 1000 || c.Fit != nil || c.Axis != report.ByOffered {
		t.Errorf("%+v", c)
	}
	if got := saturation.RateAt(c, c.Knee); got != 1000 {
		t.Errorf("the rate at the knee is %g", got)
	}
}

func TestSearchEndsWithItsMeasure(t *testing.T) {
	t.Parallel()
	gone := errors.New("gone")
	fails := func(context.Context, float64) (saturation.Stage, error) { return saturation.Stage{}, gone }
	if _, err := (saturation.Search{}).Doubling(t.Context(), 4, fails); !errors.Is(err, gone) {
		t.Errorf("Doubling = %v", err)
	}
	if _, err := (saturation.Search{}).Around(t.Context(), 4, fails); !errors.Is(err, gone) {
		t.Errorf("Around = %v", err)
	}
	if _, err := (saturation.Search{}).Doubling(t.Context(), 0, fails); err == nil {
		t.Error("nothing was measured without an error")
	}
}
