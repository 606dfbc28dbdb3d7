package loadgen

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Hey runs rakyll/hey, found at path. It keeps what it measured of a million
// requests at most, accepts any certificate, and tells latencies in steps of 100 µs.
func Hey(ctx context.Context, path string, l Load) (Result, error) {
	if err := l.checkKept(); err != nil {
		return Result{}, err
	}
	args := []string{"-c", strconv.Itoa(l.Connections), "-t", strconv.Itoa(int(bombardierTimeout / time.Second)), "-disable-redirects"}
	if l.Requests > 0 {
		args = append(args, "-n", strconv.Itoa(l.Requests))
	} else {
		args = append(args, "-z", l.Duration.String())
	}
	out, err := run(ctx, path, append(args, l.URL)...)
	if err != nil {
		return Result{}, err
	}
	return ParseHey(out)
}

// The lines of hey's summary that are used.
var (
	heyTotal  = regexp.MustCompile(`(?m)^  Total:\t(\d{1,9}\.\d{4}) secs$`)
	heyStatus = regexp.MustCompile(`^  \[(\d{3})\]\t(\d{1,15}) responses$`)
	heyError  = regexp.MustCompile(`^  \[(\d{1,15})\]\t`)
	heyTimes  = map[string]*regexp.Regexp{
		"max":  regexp.MustCompile(`(?m)^  Slowest:\t(\d{1,9}\.\d{4}) secs$`),
		"mean": regexp.MustCompile(`(?m)^  Average:\t(\d{1,9}\.\d{4}) secs$`),
		"p50":  regexp.MustCompile(`(?m)^  50% in (\d{1,9}\.\d{4}) secs$`),
		"p90":  regexp.MustCompile(`(?m)^  90% in (\d{1,9}\.\d{4}) secs$`),
		"p99":  regexp.MustCompile(`(?m)^  99% in (\d{1,9}\.\d{4}) secs$`),
	}
)

// ParseHey reads hey's summary. Latencies that it does not tell, because too little
// was answered, are zero.
func ParseHey(out []byte) (Result, error) {
	text := string(out)
	var r Result
	for _, x := range []struct {
		find     *regexp.Regexp
		to       *time.Duration
		required bool
	}{
		{heyTotal, &r.Duration, true}, {heyTimes["max"], &r.Latency.Max, true}, {heyTimes["mean"], &r.Latency.Mean, false},
		{heyTimes["p50"], &r.Latency.P50, false}, {heyTimes["p90"], &r.Latency.P90, false}, {heyTimes["p99"], &r.Latency.P99, false},
	} {
		found := x.find.FindAllStringSubmatch(text, 2)
		if len(found) == 0 && !x.required {
			continue
		}
		if len(found) != 1 {
			return Result{}, fmt.Errorf("loadgen: hey's report: %q is there %d times", x.find, len(found))
		}
		d, err := time.ParseDuration(found[0][1] + "s")
		if err != nil {
			return Result{}, fmt.Errorf("loadgen: hey's report: %w", err)
		}
		*x.to = d
	}
	if err := r.heyCounts(text); err != nil {
		return Result{}, err
	}
	return r, r.consistent()
}

// heyCounts reads the answers by status and the requests that got none. Each part ends
// with an empty line.
func (r *Result) heyCounts(text string) error {
	_, statuses, ok := strings.Cut(text, "\nStatus code distribution:\n")
	if !ok {
		return fmt.Errorf("loadgen: hey's report: no distribution of status codes")
	}
	statuses, failures, _ := strings.Cut(statuses, "\nError distribution:\n")
	for _, part := range []struct {
		text string
		line *regexp.Regexp
	}{{statuses, heyStatus}, {failures, heyError}} {
		for line := range strings.Lines(part.text) {
			line = strings.TrimSuffix(line, "\n")
			if line == "" {
				continue
			}
			found := part.line.FindStringSubmatch(line)
			if found == nil {
				return fmt.Errorf("loadgen: hey's report: %q counts nothing", line)
			}
			n, err := strconv.ParseInt(found[len(found)-1], 10, 64)
			if err != nil {
				return fmt.Errorf("loadgen: hey's report: %w", err)
			}
			r.Requests += n
			switch {
			case part.line == heyError:
				r.Errors += n
			case found[1][0] == '2':
				r.OK += n
			default:
				r.NotOK += n
			}
		}
	}
	return nil
}
