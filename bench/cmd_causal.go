package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/corridor-enclave/corridor/bench/causal"
	"github.com/corridor-enclave/corridor/bench/hops"
	"github.com/corridor-enclave/corridor/bench/markedway"
	"github.com/corridor-enclave/corridor/bench/oneprocess"
	"github.com/corridor-enclave/corridor/bench/openloop"
	"github.com/corridor-enclave/corridor/bench/report"
	"github.com/corridor-enclave/corridor/tapstack/settings"
)

func runCausal(ctx context.Context, args, environ []string, stdout io.Writer) (err error) {
	s := settings.New("bench causal")
	as := typed{"causal", args, time.Now()}
	connections := settings.Var(s, "connections", "16", "`number` of connections", strconv.Atoi)
	stage := settings.Var(s, "stage", "400ms", "how `long` each measurement is", parsePositive)
	rounds := settings.Var(s, "rounds", "5", "`number` of rounds", strconv.Atoi)
	delays := settings.Var(s, "delays", "20us,40us", "by how `much` hops are slowed, separated by commas", parseDelays)
	speedup := settings.Var(s, "speedup", "0.2", "the `share` by which a hop would be faster", parseSpeedup)
	seed := settings.Var(s, "seed", "1", "`number` that decides the order", parseSeed)
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	programs := settings.Bool(s, "programs", "ask about the real programs with TLS, with a relay in front of each that slows it, and not about one process")
	bin := settings.Var(s, "bin", filepath.Dir(self), "`folder` of the binaries", parseText)
	add := settings.Var(s, "add", "", "add the answers to this report, a JSON `file`, which need not exist", parseText)
	if done, err := load(s, args, environ, stdout); done {
		return err
	}
	url, parts, stop, err := asked(ctx, *programs, *bin, *connections, *stage)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	for _, h := range parts {
		fmt.Fprintf(stdout, "%-24s costs a request %v\n", h.Name, h.Cost.Round(100*time.Nanosecond))
	}
	e := causal.Experiment{Hops: parts, Delays: *delays, Rounds: *rounds, Seed: *seed, Speedup: *speedup}
	answers, err := e.Run(ctx, func(ctx context.Context) (causal.Observation, error) {
		return observe(ctx, url, *connections, *stage)
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "\nif a hop were %.0f %% faster, with %d connections:\n", 100**speedup, *connections)
	table := tabwriter.NewWriter(stdout, 0, 0, 3, ' ', 0)
	fmt.Fprint(table, "hop\trate\tp99\n")
	for _, a := range answers {
		fmt.Fprintf(table, "%s\t%s\t%s\n", a.Hop, percents(a.Rate), percents(a.P99))
	}
	if err := table.Flush(); err != nil || *add == "" {
		return err
	}
	return as.addTo(ctx, *add, func(r *report.Report) { r.Causal = append(r.Causal, answers...) })
}

// asked starts what is asked about, and returns where it is entered and its hops.
func asked(ctx context.Context, programs bool, bin string, connections int, stage time.Duration) (url string, parts []causal.Hop, stop func() error, err error) {
	if !programs {
		way, err := oneprocess.Start(slog.New(slog.DiscardHandler))
		if err != nil {
			return "", nil, nil, err
		}
		if parts, err = hopsOf(ctx, way, stage); err != nil {
			return "", nil, nil, errors.Join(err, way.Stop())
		}
		return way.ToRelay + "/hello", parts, way.Stop, nil
	}
	way, err := markedway.Start(ctx, hops.Tools{Bin: bin})
	if err != nil {
		return "", nil, nil, err
	}
	parts, err = way.Hops(ctx, func(ctx context.Context) (int64, error) {
		r, err := closed(ctx, way.URL, connections, 0, 5*stage) // all of it is charged
		if err != nil {
			return 0, err
		}
		return r.OK, nil
	})
	if err != nil {
		return "", nil, nil, errors.Join(err, way.Stop())
	}
	return way.URL, parts, way.Stop, nil
}

func percents(i report.Interval) string {
	return fmt.Sprintf("%+.1f %% (%+.1f to %+.1f)", 100*i.Value, 100*i.Low, 100*i.High)
}

func parseDelays(v string) ([]time.Duration, error) {
	var all []time.Duration
	for part := range strings.SplitSeq(v, ",") {
		d, err := parsePositive(part)
		if err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, nil
}

func parseSpeedup(v string) (float64, error) {
	share, err := strconv.ParseFloat(v, 64)
	if err != nil || !(share > 0 && share < 1) {
		return 0, errors.New("not a share between 0 and 1")
	}
	return share, nil
}

// hopsOf finds out what each hop costs a request that is alone: how much later the
// answer comes than without the hop. What cannot be left out, app and generator,
// is one.
func hopsOf(ctx context.Context, w *oneprocess.Way, stage time.Duration) ([]causal.Hop, error) {
	hops := []causal.Hop{
		{Name: "app, with the generator", Slow: w.AppPoint.Slow},
		{Name: "proxy", Slow: w.ProxyPoint.Slow},
		{Name: "relay", Slow: w.RelayPoint.Slow},
	}
	before := time.Duration(0)
	for i, url := range []string{w.ToApp, w.ToProxy, w.ToRelay} {
		r, err := closed(ctx, url+"/hello", 1, stage/4, stage)
		if err != nil {
			return nil, err
		}
		median := time.Duration(r.Latency.ValueAtPercentile(50))
		hops[i].Cost = max(0, median-before)
		before = median
	}
	return hops, nil
}

func observe(ctx context.Context, url string, connections int, stage time.Duration) (causal.Observation, error) {
	r, err := closed(ctx, url, connections, stage/4, stage)
	if err != nil {
		return causal.Observation{}, err
	}
	return causal.Observation{Rate: r.Rate(), P99: time.Duration(r.Latency.ValueAtPercentile(99))}, nil
}

// closed runs a closed loop of which every request must succeed.
func closed(ctx context.Context, url string, connections int, warmup, stage time.Duration) (*openloop.Result, error) {
	// What is asked is where the time goes, not who answers.
	anybody := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}
	r, err := openloop.Run(ctx, openloop.Target{URL: url, Timeout: time.Minute, TLS: anybody},
		openloop.Load{Connections: connections, Warmup: warmup, Duration: stage})
	if err != nil {
		return nil, err
	}
	return r, r.Clean()
}
