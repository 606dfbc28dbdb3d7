// Package loadgen drives the load generators that people already use and reads
// what they print into one type, so that results can be compared. It generates no
// load itself, and package binaries builds the generators.
package loadgen

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os/exec"
	"time"
)

// A Load is what a generator is asked for: each connection sends its next request
// when the last was answered, until either Requests were sent or Duration is over.
type Load struct {
	URL         string
	Connections int
	Requests    int           // in total, or 0
	Duration    time.Duration // in whole seconds, or 0
	Insecure    bool          // accept any certificate, as for a self-signed one
	Fresh       bool          // a new connection for each request, which bombardier and wrk can
}

// A Result is what a generator counted.
type Result struct {
	Requests int64         // sent, whatever became of them
	OK       int64         // answered with 2xx
	NotOK    int64         // answered with another status
	Errors   int64         // not answered: refused, reset, timed out
	Duration time.Duration // of the whole run
	Latency  Latency       // as far as the generator knows it
}

// A Latency summarises how long answers took. A field is zero where the generator
// does not measure it; baton knows Mean and Max only, in whole milliseconds.
type Latency struct {
	Mean, Max, P50, P90, P99 time.Duration
}

// Rate is the successful requests per second. Generators print rates of their own
// that count failures in; those are not used.
func (r Result) Rate() float64 {
	if r.Duration <= 0 {
		return 0
	}
	return float64(r.OK) / r.Duration.Seconds()
}

// Clean returns nil only if something was sent and all of it was answered with 2xx.
func (r Result) Clean() error {
	switch {
	case r.Requests == 0:
		return errors.New("loadgen: nothing was sent")
	case r.Errors != 0 || r.NotOK != 0 || r.OK != r.Requests:
		return fmt.Errorf("loadgen: of %d requests %d got 2xx, %d another status, %d no answer", r.Requests, r.OK, r.NotOK, r.Errors)
	}
	return nil
}

// check returns an error for what no generator can do, or none does right.
func (l Load) check() error {
	if u, err := url.Parse(l.URL); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return fmt.Errorf("loadgen: %q is not an http or https URL with a host", l.URL)
	}
	if l.Connections < 1 {
		return fmt.Errorf("loadgen: %d connections", l.Connections)
	}
	if (l.Requests > 0) == (l.Duration > 0) {
		return errors.New("loadgen: ask for a number of requests or for a duration, one of them")
	}
	if l.Duration%time.Second != 0 {
		return fmt.Errorf("loadgen: %v is not in whole seconds", l.Duration)
	}
	return nil
}

// checkKept is check for a generator that keeps its connections.
func (l Load) checkKept() error {
	if l.Fresh {
		return errors.New("loadgen: this generator cannot open a connection for each request")
	}
	return l.check()
}

// consistent refuses a result whose parts do not add up: it was misread, or the
// generator miscounts.
func (r Result) consistent() error {
	if r.Requests < 0 || r.OK+r.NotOK+r.Errors != r.Requests || r.Duration <= 0 {
		return fmt.Errorf("loadgen: %d requests are not %d + %d + %d, or took %v", r.Requests, r.OK, r.NotOK, r.Errors, r.Duration)
	}
	return nil
}

// run starts the generator and returns its standard output, whatever its exit code.
func run(ctx context.Context, path string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return out, fmt.Errorf("loadgen: run %s: %w: %s", path, err, exit.Stderr)
	}
	if err != nil {
		return nil, fmt.Errorf("loadgen: run %s: %w", path, err)
	}
	return out, nil
}
