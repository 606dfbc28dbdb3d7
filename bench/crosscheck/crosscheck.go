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
	"net/http"
	"os/exec"
	"strconv"
	"time"

	"github.com/corridor-enclave/corridor/bench/cores"
	"github.com/corridor-enclave/corridor/bench/ledger"
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
	Rounds      int           // that were quiet; each has both generators once, in turn
	Duration    time.Duration // of one load, in whole seconds
	Out         io.Writer     // gets a line for each round

	url string // of the app
}

// target makes the app, and not a generator, the limit: a request costs it more than
// it costs either of them (some 20 µs). Where generators are the limit they compare
// what they cost, and no measurement may be made there.
const target = "/hello?work=50us"

// quietBelow is the share of the machine that others may use in a round that counts.
// Beyond it the rates say how the kernel divides a core between the generator and them:
// a generator of several threads then gets more of it than one of a single thread.
const quietBelow = 0.05

// patience is how many rounds are tried for each that is asked for.
const patience = 2

// A Result has the rates of both over the rounds that count, and what ours was as a
// share of wrk's in the same round: on a machine that others use the rates of
// different rounds differ by more than generators do. If not one round was quiet, all
// count and Quiet is 0.
type Result struct {
	Ours, Wrk, Share report.Summary
	Quiet, Tried     int
}

// Judge returns nil if the two agree within a tolerance. Otherwise it says that
// they do not, or that this run cannot tell.
func (r Result) Judge(tolerance float64) error {
	s := r.Share
	if r.Quiet < (s.N+1)/2 {
		return fmt.Errorf("crosscheck: bench sends %.3f of what wrk sends (%.3f to %.3f): too noisy to tell: others used more than %.0f %% of the machine in %d of %d rounds",
			s.Median, s.Low, s.High, 100*quietBelow, r.Tried-r.Quiet, r.Tried)
	}
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
	c.url = "http://" + listening.Text("addr")
	return c.rounds(ctx, []ledger.Account{{Name: "app", Role: report.App, PID: app.PID()}})
}

// A round is what both did one after the other.
type round struct {
	ours, wrk float64 // requests a second
	foreign   float64
}

// rounds goes on until enough were quiet, or it has tried too often.
func (c Config) rounds(ctx context.Context, accounts []ledger.Account) (Result, error) {
	var all, quiet []round
	for len(quiet) < c.Rounds && len(all) < patience*c.Rounds {
		r, err := c.round(ctx, accounts, len(all)+1)
		if err != nil {
			return Result{}, err
		}
		if all = append(all, r); r.foreign <= quietBelow {
			quiet = append(quiet, r)
		}
	}
	result := Result{Quiet: len(quiet), Tried: len(all)}
	if len(quiet) == 0 {
		quiet = all
	}
	var ours, wrk, shares []float64
	for _, r := range quiet {
		ours, wrk, shares = append(ours, r.ours), append(wrk, r.wrk), append(shares, r.ours/r.wrk)
	}
	result.Ours, result.Wrk, result.Share = statistics.Summarise(ours, 1), statistics.Summarise(wrk, 1), statistics.Summarise(shares, 1)
	return result, nil
}

// round has both load the app. What ours counts is compared with what the app counts:
// that has to be the same to the last request.
func (c Config) round(ctx context.Context, accounts []ledger.Account, number int) (round, error) {
	before, err := ledger.Take(ctx, accounts)
	if err != nil {
		return round{}, err
	}
	served, err := c.served(ctx)
	if err != nil {
		return round{}, err
	}
	mine, err := c.ours(ctx, c.url+target)
	if err != nil {
		return round{}, err
	}
	after, err := c.served(ctx)
	if err != nil {
		return round{}, err
	}
	if mine.OK != after-served {
		return round{}, fmt.Errorf("crosscheck: bench counts %d answers, the app %d", mine.OK, after-served)
	}
	w, err := loadgen.Wrk(ctx, c.Wrk, loadgen.Load{URL: c.url + target, Connections: c.Connections, Duration: c.Duration})
	if err = errors.Join(err, w.Clean()); err != nil {
		return round{}, err
	}
	now, err := ledger.Take(ctx, accounts)
	if err != nil {
		return round{}, err
	}
	_, foreign := now.Since(before)
	fmt.Fprintf(c.Out, "round %d: bench %.0f/s, p50 %.0f µs; wrk %.0f/s, p50 %.0f µs; others used %.0f %%\n",
		number, mine.Values[report.Rate], mine.Values[report.P50], w.Rate(), float64(w.Latency.P50)/float64(time.Microsecond), 100*foreign)
	return round{mine.Values[report.Rate], w.Rate(), foreign}, nil
}

// served asks the app how many requests it has answered.
func (c Config) served(ctx context.Context) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+"/count", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, fmt.Errorf("crosscheck: %w", err)
	}
	defer resp.Body.Close()
	var n int64
	if _, err := fmt.Fscan(resp.Body, &n); err != nil {
		return 0, fmt.Errorf("crosscheck: the app's count: %w", err)
	}
	return n, nil
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
