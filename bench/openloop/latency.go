package openloop

import (
	"time"

	"github.com/corridor-enclave/corridor/bench/report"
)

// coarseness is how much further than the one before a bucket of a report ends at
// least: the histogram's own buckets are too many to store, and finer than what
// can be read off a chart.
const coarseness = 1.02

// Summarise returns a histogram as reports hold it, nil if it is empty.
func Summarise(h *Histogram) *report.Latency {
	if h.TotalCount() == 0 {
		return nil
	}
	micros := func(ns int64) float64 { return float64(ns) / float64(time.Microsecond) }
	l := &report.Latency{}
	for _, q := range []float64{0.5, 0.9, 0.99, 0.999, 1} {
		l.Quantiles = append(l.Quantiles, report.Quantile{Q: q, Micros: micros(h.ValueAtPercentile(100 * q))})
	}
	var last float64
	for _, bar := range h.Distribution() {
		switch end := micros(bar.To); {
		case bar.Count == 0:
		case len(l.Buckets) > 0 && end < coarseness*last:
			l.Buckets[len(l.Buckets)-1].Micros = end
			l.Buckets[len(l.Buckets)-1].Count += bar.Count
		default:
			l.Buckets = append(l.Buckets, report.Bucket{Micros: end, Count: bar.Count})
			last = end
		}
	}
	return l
}
