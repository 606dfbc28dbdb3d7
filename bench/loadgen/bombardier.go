package loadgen

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
)

// bombardierTimeout is how long bombardier waits for one answer; its own two
// seconds are less than a loaded test machine sometimes needs.
const bombardierTimeout = 30 * time.Second

// Bombardier runs codesenberg/bombardier, found at path. It is told to use
// net/http: its default client sends a request again when a connection breaks and
// counts one, so that resets stay invisible.
func Bombardier(ctx context.Context, path string, l Load) (Result, error) {
	if err := l.check(); err != nil {
		return Result{}, err
	}
	args := []string{
		"--http1", "--print", "result", "--format", "json", "--latencies",
		"--timeout", bombardierTimeout.String(), "--connections", strconv.Itoa(l.Connections),
	}
	if l.Requests > 0 {
		args = append(args, "--requests", strconv.Itoa(l.Requests))
	} else {
		args = append(args, "--duration", l.Duration.String())
	}
	if l.Insecure {
		args = append(args, "--insecure")
	}
	if l.Fresh {
		args = append(args, "--disableKeepAlives")
	}
	out, err := run(ctx, path, append(args, l.URL)...)
	if err != nil {
		return Result{}, err
	}
	return ParseBombardier(out)
}

// A bombardierReport is the part of bombardier's JSON that is used. Pointers tell
// a number that is missing from one that is zero.
type bombardierReport struct {
	Result *struct {
		TimeTaken *float64 `json:"timeTakenSeconds"`
		Status1xx *int64   `json:"req1xx"`
		Status2xx *int64   `json:"req2xx"`
		Status3xx *int64   `json:"req3xx"`
		Status4xx *int64   `json:"req4xx"`
		Status5xx *int64   `json:"req5xx"`
		Others    *int64   `json:"others"`
		Latency   struct { // in microseconds
			Mean        float64            `json:"mean"`
			Max         float64            `json:"max"`
			Percentiles map[string]float64 `json:"percentiles"`
		} `json:"latency"`
	} `json:"result"`
}

// ParseBombardier reads what `bombardier --print result --format json` prints.
// Requests without an answer are in its latencies too, so these mean something
// only if Clean returns nil.
func ParseBombardier(out []byte) (Result, error) {
	var report bombardierReport
	decoder := json.NewDecoder(bytes.NewReader(out))
	if err := decoder.Decode(&report); err != nil {
		return Result{}, fmt.Errorf("loadgen: bombardier's report: %w", err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return Result{}, errors.New("loadgen: bombardier's report: more than one object")
	}
	r := report.Result
	if r == nil || r.TimeTaken == nil {
		return Result{}, errors.New("loadgen: bombardier's report: no result or no time")
	}
	var total, notOK int64
	for _, n := range []*int64{r.Status1xx, r.Status2xx, r.Status3xx, r.Status4xx, r.Status5xx, r.Others} {
		if n == nil || *n < 0 {
			return Result{}, errors.New("loadgen: bombardier's report: a count is missing or negative")
		}
		total += *n
	}
	notOK = total - *r.Status2xx - *r.Others
	microseconds := func(us float64) time.Duration { return time.Duration(us * float64(time.Microsecond)) }
	result := Result{
		Requests: total, OK: *r.Status2xx, NotOK: notOK, Errors: *r.Others,
		Duration: time.Duration(*r.TimeTaken * float64(time.Second)),
		Latency: Latency{
			Mean: microseconds(r.Latency.Mean), Max: microseconds(r.Latency.Max),
			P50: microseconds(r.Latency.Percentiles["50"]),
			P90: microseconds(r.Latency.Percentiles["90"]),
			P99: microseconds(r.Latency.Percentiles["99"]),
		},
	}
	return result, result.consistent()
}
