// Package crosscheck compares bench's own generator with wrk, at the sample app
// alone: a generator that nobody checked measures itself. The app has a core to
// itself, and the generators take turns on another.
package crosscheck

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os/exec"
	"strconv"
	"time"

	"github.com/corridor-enclave/corridor/bench/cores"
	"github.com/corridor-enclave/corridor/bench/loadgen"
	"github.com/corridor-enclave/corridor/bench/process"
	"github.com/corridor-enclave/corridor/bench/report"
	"github.com/corridor-enclave/corridor/bench/statistics"
)

// A Config is what to compare and how long.
type Config struct {
	Bench       string // path of the bench binary, which is app and generator
	Wrk         string // path of wrk
	Connections int
	Rounds      int           // each has both generators once, in turn
	Duration    time.Duration // of one load, in whole seconds
	Out         io.Writer     // gets a line for each round
}

// A Result has the rates of both over all rounds, and what ours was as a share of
// wrk's in the same round: on a machine that others use the rates of different
// rounds differ by more than generators do.
type Result struct{ Ours, Wrk, Share report.Summary }

// Judge returns nil if the two agree within a tolerance. Otherwise it says that
// they do not, or that this run cannot tell.
func (r Result) Judge(tolerance float64) error {
	s := r.Share
	if math.Abs(s.Median-1) <= tolerance {
		return nil
	}
	verdict := "they differ"
	if s.Low <= 1+tolerance && s.High >= 1-tolerance {
		verdict = "too noisy to tell"
	}
	return fmt.Errorf("crosscheck: bench sends %.3f of what wrk sends (%.3f to %.3f): %s", s.Median, s.Low, s.High, verdict)
}

// Run compares. Every request of both must succeed. It moves all threads of this
// process to one core, and back before it returns.
func Run(ctx context.Context, c Config) (r Result, err error) {
	all, err := cores.Allowed()
	if err != nil {
		return Result{}, err
	}
	if len(all) < 2 {
		return Result{}, errors.New("crosscheck: needs two cores, one for the app and one for the generators")
	}
	defer func() { err = errors.Join(err, cores.Pin(all)) }()
	// What is started inherits the core of the thread that starts it.
	if err := cores.Pin(all[:1]); err != nil {
		return Result{}, err
	}
	app, err := process.Start(process.Command{Name: "app", Path: c.Bench, Args: []string{"app", "--listen", "tcp:127.0.0.1:0"}})
	if err != nil {
		return Result{}, err
	}
	defer app.Stop(5 * time.Second)
	listening, err := app.WaitMessage(ctx, "listening")
	if err != nil {
		return Result{}, err
	}
	if err := cores.Pin(all[1:2]); err != nil {
		return Result{}, err
	}
	url := "http://" + listening.Text("addr") + "/hello"
	var ours, theirs, shares []float64
	for round := range c.Rounds {
		mine, err := c.ours(ctx, url)
		if err != nil {
			return Result{}, err
		}
		w, err := loadgen.Wrk(ctx, c.Wrk, loadgen.Load{URL: url, Connections: c.Connections, Duration: c.Duration})
		if err = errors.Join(err, w.Clean()); err != nil {
			return Result{}, err
		}
		ours, theirs = append(ours, mine.Values[report.Rate]), append(theirs, w.Rate())
		shares = append(shares, mine.Values[report.Rate]/w.Rate())
		fmt.Fprintf(c.Out, "round %d: bench %.0f/s, p50 %.0f µs; wrk %.0f/s, p50 %.0f µs\n",
			round+1, mine.Values[report.Rate], mine.Values[report.P50], w.Rate(), float64(w.Latency.P50)/float64(time.Microsecond))
	}
	return Result{Ours: statistics.Summarise(ours, 1), Wrk: statistics.Summarise(theirs, 1), Share: statistics.Summarise(shares, 1)}, nil
}

// ours runs bench load in a closed loop, as wrk does.
func (c Config) ours(ctx context.Context, url string) (report.Sample, error) {
	cmd := exec.CommandContext(ctx, c.Bench, "load", "--json", "--connections", strconv.Itoa(c.Connections), "--warmup", "0s", "--duration", c.Duration.String(), url)
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return report.Sample{}, fmt.Errorf("crosscheck: bench load: %w: %s", err, exit.Stderr)
	}
	if err != nil {
		return report.Sample{}, fmt.Errorf("crosscheck: bench load: %w", err)
	}
	var s report.Sample
	if err := json.Unmarshal(out, &s); err != nil {
		return report.Sample{}, fmt.Errorf("crosscheck: bench load printed no sample: %w", err)
	}
	return s, nil
}
