package loadgen

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// maxBatonConnections is fasthttp's limit of connections to one host, which baton
// leaves in force: above it, requests fail without having been sent.
const maxBatonConnections = 512

// Baton runs americanexpress/baton, found at path. It exits with 0 whatever
// happened, so only its text says how it went.
func Baton(ctx context.Context, path string, l Load) (Result, error) {
	if err := l.checkKept(); err != nil {
		return Result{}, err
	}
	if l.Connections > maxBatonConnections {
		return Result{}, fmt.Errorf("loadgen: baton with %d connections: above %d it counts requests that it never sent", l.Connections, maxBatonConnections)
	}
	args := []string{"-u", l.URL, "-c", strconv.Itoa(l.Connections)}
	if l.Requests > 0 {
		args = append(args, "-r", strconv.Itoa(l.Requests))
	} else {
		args = append(args, "-t", strconv.Itoa(int(l.Duration/time.Second)))
	}
	if l.Insecure {
		args = append(args, "-i")
	}
	out, err := run(ctx, path, args...)
	if err != nil {
		return Result{}, err
	}
	return ParseBaton(out)
}

// The lines of baton's report that are used. Its "Requests per second" is not one
// of them: it counts requests that failed.
const (
	batonTotal  = "Total requests"
	batonTime   = "Time taken to complete requests"
	batonErrors = "Number of connection errors"
	batonOK     = "Number of 2xx responses"
	batonMean   = "Avg response time (ms)"
	batonMax    = "Max response time (ms)"
)

// ParseBaton reads what baton prints. Latencies are absent when baton ran for a
// duration, and meaningless when there were errors.
func ParseBaton(out []byte) (Result, error) {
	lines := map[string]string{}
	for scanner := bufio.NewScanner(bytes.NewReader(out)); scanner.Scan(); {
		name, value, ok := strings.Cut(scanner.Text(), ":")
		if !ok {
			continue
		}
		name = strings.TrimSpace(name)
		if _, twice := lines[name]; twice && strings.HasPrefix(name, "Number of") {
			return Result{}, fmt.Errorf("loadgen: baton's report has %q twice", name)
		}
		lines[name] = strings.TrimSpace(value)
	}
	var result Result
	notOK := map[string]*int64{"Number of 1xx responses": new(int64), "Number of 3xx responses": new(int64),
		"Number of 4xx responses": new(int64), "Number of 5xx responses": new(int64)}
	counts := map[string]*int64{batonTotal: &result.Requests, batonErrors: &result.Errors, batonOK: &result.OK}
	for name, n := range notOK {
		counts[name] = n
	}
	for name, n := range counts {
		v, err := strconv.ParseInt(lines[name], 10, 64)
		if err != nil || v < 0 {
			return Result{}, fmt.Errorf("loadgen: baton's report: %q is %q", name, lines[name])
		}
		*n = v
	}
	for _, n := range notOK {
		result.NotOK += *n
	}
	var err error
	if result.Duration, err = time.ParseDuration(lines[batonTime]); err != nil {
		return Result{}, fmt.Errorf("loadgen: baton's report: %q is %q", batonTime, lines[batonTime])
	}
	if result.Errors == 0 {
		if result.Latency, err = batonLatency(lines); err != nil {
			return Result{}, err
		}
	}
	return result, result.consistent()
}

// batonLatency reads the two latencies, which are there or not together. Baton
// drops the first sample of each connection and prints NaN if none is left.
func batonLatency(lines map[string]string) (Latency, error) {
	if lines[batonMean] == "NaN" || (lines[batonMean] == "" && lines[batonMax] == "") {
		return Latency{}, nil
	}
	mean, err := strconv.ParseFloat(lines[batonMean], 64)
	if err != nil || mean < 0 {
		return Latency{}, fmt.Errorf("loadgen: baton's report: %q is %q", batonMean, lines[batonMean])
	}
	longest, err := strconv.ParseInt(lines[batonMax], 10, 64)
	if err != nil || longest < 0 {
		return Latency{}, fmt.Errorf("loadgen: baton's report: %q is %q", batonMax, lines[batonMax])
	}
	return Latency{
		Mean: time.Duration(mean * float64(time.Millisecond)),
		Max:  time.Duration(longest) * time.Millisecond,
	}, nil
}
