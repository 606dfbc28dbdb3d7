package report

import (
	"errors"
	"fmt"
	"math"
)

// check returns everything about the report that contradicts itself.
func (r *Report) check() error {
	if r.Schema != Schema {
		return fmt.Errorf("report: schema %d, this bench reads %d", r.Schema, Schema)
	}
	var errs []error
	seen := map[string]bool{}
	for _, result := range r.Results {
		key := result.Key()
		if seen[key] {
			errs = append(errs, fmt.Errorf("report: result %q appears twice", key))
		}
		seen[key] = true
		for i, s := range result.Samples {
			if err := s.check(); err != nil {
				errs = append(errs, fmt.Errorf("report: result %q, sample %d: %w", key, i, err))
			}
		}
		for m, s := range result.Summary {
			if s.N < 1 || s.N > len(result.Samples) || !(s.Low <= s.Median && s.Median <= s.High) {
				errs = append(errs, fmt.Errorf("report: result %q, %s: no summary of %d samples: %+v", key, m, len(result.Samples), s))
			}
		}
	}
	return errors.Join(errs...)
}

func (s Sample) check() error {
	if s.Sent < 0 || s.OK < 0 || s.NotOK < 0 || s.Errors < 0 || s.Bytes < 0 || s.Seconds < 0 {
		return errors.New("a negative count")
	}
	if s.Failure != "" {
		if len(s.Values) > 0 {
			return errors.New("it failed and has values")
		}
		return nil
	}
	if s.OK == 0 {
		return errors.New("nothing succeeded, and no failure is named")
	}
	if s.OK+s.NotOK+s.Errors != s.Sent {
		return fmt.Errorf("%d sent are not %d + %d + %d", s.Sent, s.OK, s.NotOK, s.Errors)
	}
	for m, v := range s.Values {
		if v < 0 || math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Errorf("%s is %v", m, v)
		}
	}
	return s.Latency.check()
}

func (l *Latency) check() error {
	if l == nil {
		return nil
	}
	for i := 1; i < len(l.Quantiles); i++ {
		if l.Quantiles[i].Q <= l.Quantiles[i-1].Q || l.Quantiles[i].Micros < l.Quantiles[i-1].Micros {
			return errors.New("quantiles that do not rise")
		}
	}
	for i, b := range l.Buckets {
		if b.Count < 1 || (i > 0 && b.Micros <= l.Buckets[i-1].Micros) {
			return errors.New("buckets that do not rise or are empty")
		}
	}
	return nil
}

// Values collects the values of each metric over the samples that did not fail, in
// order of rounds.
func (r Result) Values() map[Metric][]float64 {
	values := map[Metric][]float64{}
	for _, s := range r.Samples {
		for m, v := range s.Values {
			values[m] = append(values[m], v)
		}
	}
	return values
}
