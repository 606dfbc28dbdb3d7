package openloop

import (
	"time"

	"github.com/corridor-enclave/corridor/bench/report"
)

// Sample returns the result as reports hold it. One that is not clean is a
// failure there and has no values.
func (r *Result) Sample(ended time.Time) report.Sample {
	bad := r.Failures[BadStatus]
	s := report.Sample{
		Started: ended.Add(-r.Elapsed), Seconds: r.Elapsed.Seconds(),
		Sent: r.Sent, OK: r.OK, NotOK: bad, Errors: r.Sent - r.OK - bad,
	}
	if err := r.Clean(); err != nil {
		s.Failure = err.Error()
		return s
	}
	s.Latency = Summarise(r.Latency)
	micros := func(percentile float64) float64 {
		return float64(r.Latency.ValueAtPercentile(percentile)) / float64(time.Microsecond)
	}
	s.Values = map[report.Metric]float64{
		report.Rate: r.Rate(), report.P50: micros(50), report.P90: micros(90), report.P99: micros(99),
	}
	return s
}
