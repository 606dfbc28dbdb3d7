package exposition

import (
	"slices"
	"sync/atomic"
	"time"
)

// A Histogram counts values in buckets that never change. Any number of
// goroutines may observe and read at once: no lock is taken and nothing is
// allocated.
type Histogram struct {
	bounds []uint64
	unit   float64
	counts []atomic.Uint64 // one more than bounds
	sum    atomic.Uint64
}

// NewHistogram returns a histogram whose bucket i counts the values up to and
// with bounds[i], which must ascend; one more bucket counts those above all. Unit
// is what a value of 1 is on a page: 1e-9 for nanoseconds that are told as
// seconds, 1 for bytes.
func NewHistogram(unit float64, bounds ...uint64) *Histogram {
	bounds = slices.Clone(bounds)
	return &Histogram{bounds: bounds, unit: unit, counts: make([]atomic.Uint64, len(bounds)+1)}
}

// NewDurations returns a histogram of DurationBounds, told in seconds.
func NewDurations() *Histogram { return NewHistogram(1e-9, DurationBounds()...) }

// NewSizes returns a histogram of bytes, from a small frame to a full buffer.
func NewSizes() *Histogram {
	return NewHistogram(1, 128, 512, 1514, 4<<10, 16<<10, 32<<10, 64<<10, 128<<10, 256<<10)
}

// NewCounts returns a histogram of how many came at a time, 1 to 256.
func NewCounts() *Histogram { return NewHistogram(1, 1, 2, 4, 8, 16, 32, 64, 128, 256) }

// DurationBounds are 10 µs to 10 s, three to a decade, in nanoseconds.
func DurationBounds() []uint64 {
	var bounds []uint64
	for decade := 10 * time.Microsecond; decade < 10*time.Second; decade *= 10 {
		bounds = append(bounds, uint64(decade), uint64(decade*5/2), uint64(decade*5))
	}
	return append(bounds, uint64(10*time.Second))
}

// Observe counts one value.
func (h *Histogram) Observe(value uint64) {
	i, _ := slices.BinarySearch(h.bounds, value)
	h.counts[i].Add(1)
	h.sum.Add(value)
}

// ObserveDuration counts one duration, in nanoseconds. A negative one is 0: a
// clock was set back.
func (h *Histogram) ObserveDuration(d time.Duration) { h.Observe(uint64(max(d, 0))) }

// A Snapshot is a histogram at one moment.
type Snapshot struct {
	Bounds []uint64 // the upper bounds of all buckets but the last
	Counts []uint64 // of each bucket alone
	Sum    uint64   // of all values
	Unit   float64  // what a value of 1 is on a page
}

// Snapshot reads the histogram. Values observed meanwhile may be in the counts
// and not yet in the sum.
func (h *Histogram) Snapshot() Snapshot {
	s := Snapshot{Bounds: h.bounds, Counts: make([]uint64, len(h.counts)), Unit: h.unit, Sum: h.sum.Load()}
	for i := range h.counts {
		s.Counts[i] = h.counts[i].Load()
	}
	return s
}

// Count is the number of values in the snapshot.
func (s Snapshot) Count() uint64 {
	var n uint64
	for _, c := range s.Counts {
		n += c
	}
	return n
}

// Quantile estimates the value below which the part q of all lies, 0 < q <= 1, on
// a page's unit: the upper bound of its bucket, or of the last bounded one. It is
// 0 when there are no values.
func (s Snapshot) Quantile(q float64) float64 {
	total := float64(s.Count())
	if total == 0 || len(s.Bounds) == 0 {
		return 0
	}
	var n float64
	for i, c := range s.Counts[:len(s.Bounds)] {
		if n += float64(c); n >= q*total {
			return float64(s.Bounds[i]) * s.Unit
		}
	}
	return float64(s.Bounds[len(s.Bounds)-1]) * s.Unit
}
