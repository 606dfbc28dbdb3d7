package loadgen

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// wrkTimeout is after how long wrk counts a request as timed out; its own two
// seconds are less than a loaded test machine sometimes needs.
const wrkTimeout = "30s"

// Wrk runs wg/wrk, found at path, for a duration, with one thread: on a machine of
// two cores a second one would take what is to be measured. It accepts any
// certificate. It does not count what it sends again, and 3xx passes for 2xx.
func Wrk(ctx context.Context, path string, l Load) (Result, error) {
	if err := l.check(); err != nil {
		return Result{}, err
	}
	if l.Duration == 0 {
		return Result{}, fmt.Errorf("loadgen: wrk runs for a duration, not for a number of requests")
	}
	seconds := strconv.Itoa(int(l.Duration/time.Second)) + "s"
	args := []string{"-t1", "-c", strconv.Itoa(l.Connections), "-d", seconds, "--timeout", wrkTimeout, "--latency"}
	if l.Fresh {
		// The server closes, and so keeps what TIME_WAIT keeps: wrk's ports are free again.
		args = append(args, "-H", "Connection: close")
	}
	out, err := run(ctx, path, append(args, l.URL)...)
	if err != nil {
		return Result{}, err
	}
	return ParseWrk(out)
}

// ParseWrk reads what `wrk --latency` prints. What failed on a socket was begun
// and counts as sent.
func ParseWrk(out []byte) (Result, error) {
	text := string(out)
	number := func(pattern string, required bool) (float64, error) {
		found := regexp.MustCompile(pattern).FindAllStringSubmatch(text, 2)
		if len(found) == 0 && !required {
			return 0, nil
		}
		if len(found) != 1 {
			return 0, fmt.Errorf("loadgen: wrk's report: %q is there %d times", pattern, len(found))
		}
		return strconv.ParseFloat(found[0][1], 64)
	}
	values := map[string]float64{}
	for _, v := range []struct {
		name, pattern string
		required      bool
	}{
		{"requests", `(?m)^ +(\d{1,15}) requests in `, true},
		{"rate", `(?m)^Requests/sec: +(\d{1,12}\.\d+)$`, true},
		{"not 2xx", `(?m)^  Non-2xx or 3xx responses: (\d{1,15})$`, false},
		{"connect", `(?m)^  Socket errors: connect (\d{1,9}),`, false},
		{"read", `(?m)^  Socket errors: .*\bread (\d{1,9}),`, false},
		{"write", `(?m)^  Socket errors: .*\bwrite (\d{1,9}),`, false},
		{"timeout", `(?m)^  Socket errors: .*\btimeout (\d{1,9})$`, false},
	} {
		n, err := number(v.pattern, v.required)
		if err != nil {
			return Result{}, err
		}
		values[v.name] = n
	}
	// The time that wrk prints has three digits; its rate has more.
	if values["rate"] <= 0 {
		return Result{}, fmt.Errorf("loadgen: wrk's report: nothing was answered")
	}
	r := Result{
		NotOK:    int64(values["not 2xx"]),
		Errors:   int64(values["connect"] + values["read"] + values["write"] + values["timeout"]),
		Duration: time.Duration(values["requests"] / values["rate"] * float64(time.Second)),
	}
	r.OK = int64(values["requests"]) - r.NotOK
	r.Requests = r.OK + r.NotOK + r.Errors
	if r.OK < 0 {
		return Result{}, fmt.Errorf("loadgen: wrk's report: %d answers other than 2xx of %v", r.NotOK, values["requests"])
	}
	var err error
	if r.Latency, err = wrkLatency(text); err != nil {
		return Result{}, err
	}
	return r, r.consistent()
}

// wrkLatency reads the distribution and, from the line of statistics, mean and
// maximum.
func wrkLatency(text string) (Latency, error) {
	var l Latency
	for pattern, to := range map[string][]*time.Duration{
		`(?m)^    Latency +(\S+) +\S+ +(\S+) `: {&l.Mean, &l.Max},
		`(?m)^     50% +(\S+) *$`:              {&l.P50},
		`(?m)^     90% +(\S+) *$`:              {&l.P90},
		`(?m)^     99% +(\S+) *$`:              {&l.P99},
	} {
		found := regexp.MustCompile(pattern).FindStringSubmatch(text)
		if found == nil {
			return Latency{}, fmt.Errorf("loadgen: wrk's report: no %q", pattern)
		}
		for i, p := range to {
			d, err := time.ParseDuration(found[i+1]) // us, ms, s, m, h, as Go writes them
			if err != nil || d < 0 || strings.HasPrefix(found[i+1], "+") {
				return Latency{}, fmt.Errorf("loadgen: wrk's report: latency %q", found[i+1])
			}
			*p = d
		}
	}
	return l, nil
}
