package openloop_test

import (
	"math"
	"testing"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/corridor-enclave/corridor/bench/openloop"
)

// TestSummaryLosesNoAnswer: buckets are merged, never dropped, and no quantile
// moves by more than their width.
func TestSummaryLosesNoAnswer(t *testing.T) {
	t.Parallel()
	h := hdrhistogram.New(1, 600e9, 3)
	if openloop.Summarise(h) != nil {
		t.Error("an empty histogram has a summary")
	}
	for i := range int64(100_000) {
		if err := h.RecordValue(20_000 + i*i/100); err != nil {
			t.Fatal(err)
		}
	}
	l := openloop.Summarise(h)
	var count int64
	reached := map[float64]float64{}
	for i, b := range l.Buckets {
		if b.Count < 1 || i > 0 && b.Micros <= l.Buckets[i-1].Micros {
			t.Fatalf("bucket %d %+v behind %+v", i, b, l.Buckets[i-1])
		}
		count += b.Count
		for _, q := range l.Quantiles {
			if _, ok := reached[q.Q]; !ok && float64(count) >= q.Q*100_000 {
				reached[q.Q] = b.Micros
			}
		}
	}
	if count != 100_000 || len(l.Buckets) > 1000 {
		t.Errorf("%d answers in %d buckets, want 100,000 in fewer than 1,000", count, len(l.Buckets))
	}
	for _, q := range l.Quantiles {
		if math.Abs(reached[q.Q]/q.Micros-1) > 0.03 {
			t.Errorf("quantile %g is %g µs, by the buckets %g µs", q.Q, q.Micros, reached[q.Q])
		}
	}
}
