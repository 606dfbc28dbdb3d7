// Package saturation finds out how much a target can take: it doubles the
// concurrency until something breaks, then offers load around the knee that it
// found. It sends nothing itself; the caller's function does, and bench/report
// holds what comes out.
package saturation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/corridor-enclave/corridor/bench/report"
)

const (
	// tolerated is the share of operations that may fail before a target counts as
	// broken.
	tolerated = 0.001
	// sinking is the share of the best rate below which two stages in a row end the
	// search: one may be the machine's mood.
	sinking = 0.9
	// objectiveTimes is the default objective in p99 of the first stage.
	objectiveTimes = 10
)

// A Stage is one measurement.
type Stage struct {
	Point report.Point // whose X the search fills in
	Sent  int64        // operations that were due, whether or not they succeeded
}

// A Measure loads the target and returns what came of it. An error ends the search.
type Measure func(ctx context.Context, x float64) (Stage, error)

// A Search is what to look for.
type Search struct {
	// Objective is the p99 up to which a rate is usable. Zero means ten times the
	// p99 of the first stage.
	Objective time.Duration
	// Done is called behind each stage, if it is not nil.
	Done func(report.Point)
}

// Doubling measures closed loops of 1, 2, 4, ... up to most connections and stops
// when more than one in a thousand operations fails, or when the rate was below
// nine tenths of the best in two stages in a row. The curve has the knee, the peak
// and, from three stages on, a fit of the Universal Scalability Law.
func (s Search) Doubling(ctx context.Context, most int, measure Measure) (report.Curve, error) {
	var loads []float64
	for n := 1; n <= most; n *= 2 {
		loads = append(loads, float64(n))
	}
	c := report.Curve{Axis: report.ByConnections}
	var err error
	if c.Points, c.Stop, err = s.stages(ctx, loads, measure, broken()); err != nil {
		return report.Curve{}, err
	}
	s.mark(&c)
	if fit, err := Fit(c.Points); err == nil {
		c.Fit = &fit
	}
	return c, nil
}

// Around measures open loops from half of a rate to a fifth above it. It goes on
// behind the point where the target breaks: what happens there is the question.
func (s Search) Around(ctx context.Context, rate float64, measure Measure) (report.Curve, error) {
	var loads []float64
	for _, share := range []float64{0.5, 0.7, 0.8, 0.9, 0.95, 1, 1.1, 1.2} {
		loads = append(loads, share*rate)
	}
	return s.Over(ctx, report.ByOffered, loads, measure)
}

// Over measures the given stages of any axis, all of them.
func (s Search) Over(ctx context.Context, axis report.Axis, loads []float64, measure Measure) (report.Curve, error) {
	c := report.Curve{Axis: axis}
	var err error
	if c.Points, c.Stop, err = s.stages(ctx, loads, measure, never); err != nil {
		return report.Curve{}, err
	}
	s.mark(&c)
	return c, nil
}

// never ends no search before its last stage.
func never(Stage) string { return "" }

// broken returns a function that looks at one stage after the other and says why
// to stop, or nothing.
func broken() func(Stage) string {
	best, low := 0.0, 0
	return func(st Stage) string {
		p := st.Point
		if float64(p.Errors) > tolerated*float64(st.Sent) {
			return fmt.Sprintf("at %.0f, %d of %d operations failed", p.X, p.Errors, st.Sent)
		}
		best = max(best, p.Rate)
		if p.Rate >= sinking*best {
			low = 0
			return ""
		}
		if low++; low == 2 {
			return fmt.Sprintf("at %.0f, the rate was below %g of the best for the second time", p.X, sinking)
		}
		return ""
	}
}

func (s Search) stages(ctx context.Context, loads []float64, measure Measure, stop func(Stage) string) ([]report.Point, string, error) {
	var points []report.Point
	for _, x := range loads {
		st, err := measure(ctx, x)
		if err != nil {
			return nil, "", fmt.Errorf("saturation: at %g: %w", x, err)
		}
		st.Point.X = x
		points = append(points, st.Point)
		if s.Done != nil {
			s.Done(st.Point)
		}
		if why := stop(st); why != "" {
			return points, why, nil
		}
	}
	if len(points) == 0 {
		return nil, "", errors.New("saturation: nothing to measure")
	}
	return points, fmt.Sprintf("at %.0f, the last stage that was asked for", points[len(points)-1].X), nil
}

// mark finds knee and peak.
func (s Search) mark(c *report.Curve) {
	objective := float64(s.Objective) / float64(time.Microsecond)
	if objective == 0 {
		objective = objectiveTimes * c.Points[0].P99
	}
	var knee, peak *report.Point
	for i := range c.Points {
		p := &c.Points[i]
		if p.Rate <= 0 {
			continue
		}
		if peak == nil || p.Rate > peak.Rate {
			peak = p
		}
		if p.P99 <= objective && (knee == nil || p.Rate > knee.Rate) {
			knee = p
		}
	}
	if peak != nil {
		c.Peak = &peak.X
	}
	if knee != nil {
		c.Knee = &knee.X
	}
}

// RateAt is the rate of a curve at one of its points, 0 if there is no such point.
func RateAt(c report.Curve, x *float64) float64 {
	for _, p := range c.Points {
		if x != nil && p.X == *x {
			return p.Rate
		}
	}
	return 0
}
