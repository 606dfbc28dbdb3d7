package openloop

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Latencies are kept from a nanosecond to longest with three significant digits.
const (
	longest = 10 * time.Minute
	digits  = 3
)

// A Histogram holds latencies in nanoseconds.
type Histogram = hdrhistogram.Histogram

func newHistogram() *Histogram {
	return hdrhistogram.New(1, int64(longest), digits)
}

// A Result is what came of a load. Requests of its warm-up are in none of it.
type Result struct {
	Sent     int64 // begun
	OK       int64 // answered with 2xx
	Failures map[Class]int64
	// First describes one failure, the first that was counted; empty if none was.
	First string
	// Unsent are requests whose time came and for which no connection was free
	// until the load was given up. They are not in Sent.
	Unsent int64
	// Bytes are those of the bodies of answers.
	Bytes int64
	// Elapsed is from the end of the warm-up to the last answer, and not less than
	// was asked for.
	Elapsed time.Duration

	// Latency is from the time at which a request should have started to the end
	// of its answer: what a user waited who did not know that the server stalled.
	// Requests that failed are not in it. Unsent ones are, with the time that they
	// had waited when the load was given up, which is less than the truth. Of a
	// closed loop it is the same as Service.
	Latency *Histogram
	// Service is from the first byte of a request to the end of its answer.
	Service *Histogram
	// Refused is the same for requests whose answer is no 2xx.
	Refused *Histogram
	// Late is how much later than it should this generator woke up for requests
	// that it waited for: its own error, which is in Latency too.
	Late *Histogram
}

// Rate is the successful requests a second.
func (r *Result) Rate() float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(r.OK) / r.Elapsed.Seconds()
}

// Clean returns nil only if something was sent, everything that should be, and all
// of it was answered with 2xx.
func (r *Result) Clean() error {
	switch {
	case r.Sent == 0:
		return errors.New("openloop: nothing was sent")
	case r.OK != r.Sent:
		return fmt.Errorf("openloop: %d of %d requests failed %v, the first: %s", r.Sent-r.OK, r.Sent, r.Failures, r.First)
	case r.Unsent != 0:
		return fmt.Errorf("openloop: %d requests were not sent, because all connections were busy", r.Unsent)
	}
	return nil
}

// A tally collects a Result from many goroutines.
type tally struct {
	mu   sync.Mutex
	r    Result
	last time.Duration // when the last answer ended, from the start of the load
}

func newTally() *tally {
	return &tally{r: Result{
		Failures: map[Class]int64{}, Latency: newHistogram(), Service: newHistogram(), Refused: newHistogram(), Late: newHistogram(),
	}}
}

// An outcome is one request: all times are from the start of the load.
type outcome struct {
	intended, sent, done time.Duration
	bytes                int64
	failed               Class // empty if it did not
	text                 string
}

func (t *tally) add(o outcome) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.r.Sent++
	t.last = max(t.last, o.done)
	if o.failed != "" {
		t.r.Failures[o.failed]++
		if o.failed == BadStatus {
			record(t.r.Refused, o.done-o.sent)
		}
		if t.r.First == "" {
			t.r.First = o.text
		}
		return
	}
	t.r.OK++
	t.r.Bytes += o.bytes
	record(t.r.Latency, o.done-o.intended)
	record(t.r.Service, o.done-o.sent)
}

func (t *tally) unsent(intended, now time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.r.Unsent++
	record(t.r.Latency, now-intended)
}

func (t *tally) late(by time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	record(t.r.Late, by)
}

// record keeps what lies outside of the histogram's range at its edge.
func record(h *Histogram, d time.Duration) {
	// Within the range it cannot fail.
	_ = h.RecordValue(int64(min(max(d, 1), longest)))
}

// result ends the collection. window is what was asked for, behind warmup.
func (t *tally) result(warmup, window time.Duration) *Result {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.r.Elapsed = max(window, t.last-warmup)
	return &t.r
}
