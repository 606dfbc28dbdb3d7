package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/corridor-enclave/corridor/bench/hops"
	"github.com/corridor-enclave/corridor/bench/measure"
	"github.com/corridor-enclave/corridor/bench/openloop"
	"github.com/corridor-enclave/corridor/bench/report"
	"github.com/corridor-enclave/corridor/bench/sampleapp"
	"github.com/corridor-enclave/corridor/bench/saturation"
	"github.com/corridor-enclave/corridor/tapstack/settings"
)

// A saturating is one run of bench saturate.
type saturating struct {
	target    openloop.Target
	hop       string
	variant   string
	most      int
	stage     time.Duration
	objective time.Duration
	axis      report.Axis
	tools     hops.Tools // of --by enclaves
	out       io.Writer
}

func runSaturate(ctx context.Context, args, environ []string, stdout io.Writer) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	s := settings.New("bench saturate")
	as := typed{"saturate", args, time.Now()}
	where, args := declareTarget(s, args)
	run := saturating{out: stdout}
	hop := settings.Var(s, "hop", "url", "what to call it in the `report`", parseText)
	variant := settings.Var(s, "variant", "as found", "and by `what` it is done", parseText)
	most := settings.Var(s, "max", "512", "`connections` of the last stage, or of each stage of --by body and --by enclaves", strconv.Atoi)
	stage := settings.Var(s, "stage", "3s", "how `long` one stage is, behind a third of it to warm up", parsePositive)
	objective := settings.Var(s, "objective", "0s", "p99 up to which a rate is `usable`; 0s means ten times that of the first stage", time.ParseDuration)
	axis := settings.Var(s, "by", "connections", "what grows: `connections, body or enclaves`", parseAxis)
	bin := settings.Var(s, "bin", filepath.Dir(self), "`folder` of the binaries that --by enclaves starts", parseText)
	add := settings.Var(s, "add", "", "add the curves to this report, a JSON `file`, which need not exist", parseText)
	if done, err := load(s, args, environ, stdout); done {
		return err
	}
	if *axis == report.ByEnclaves {
		if where.url != "" {
			return usageError{errors.New("--by enclaves starts what it loads: it takes no URL")}
		}
		run.tools = hops.Tools{Bin: *bin}
		if !s.IsSet("hop") {
			*hop, *variant = "way", "stream"
		}
	} else if run.target, err = where.target(); err != nil {
		return err
	}
	run.hop, run.variant, run.most, run.stage, run.objective, run.axis = *hop, *variant, *most, *stage, *objective, *axis
	curves, err := run.curves(ctx)
	if err != nil || *add == "" {
		return err
	}
	return as.addTo(ctx, *add, func(r *report.Report) { r.Curves = append(r.Curves, curves...) })
}

func parseText(v string) (string, error) { return v, nil }

func parseAxis(v string) (report.Axis, error) {
	axis, ok := map[string]report.Axis{"connections": report.ByConnections, "body": report.ByBody, "enclaves": report.ByEnclaves}[v]
	if !ok {
		return "", errors.New("none of connections, body, enclaves")
	}
	return axis, nil
}

// curves measures and prints as it goes.
func (s saturating) curves(ctx context.Context) ([]report.Curve, error) {
	if s.axis == report.ByBody {
		sizes := []float64{0, 1 << 10, 16 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20}
		c, err := s.search(report.ByBody).Over(ctx, report.ByBody, sizes, s.body)
		if err != nil {
			return nil, err
		}
		return []report.Curve{s.finish(c, s.most)}, nil
	}
	if s.axis == report.ByEnclaves {
		c, err := s.search(report.ByEnclaves).Over(ctx, report.ByEnclaves, []float64{1, 2, 4, 8}, s.enclaves)
		if err != nil {
			return nil, err
		}
		return []report.Curve{s.finish(c, s.most)}, nil
	}
	closed, err := s.search(report.ByConnections).Doubling(ctx, s.most, s.closed)
	if err != nil {
		return nil, err
	}
	closed = s.finish(closed, 0)
	if closed.Knee == nil {
		fmt.Fprintln(s.out, "no stage was within the objective: there is no knee to look around")
		return []report.Curve{closed}, nil
	}
	// Enough that the generator does not run out of connections before the target
	// runs out of breath.
	connections := min(max(64, 4*int(*closed.Knee)), 1024)
	open, err := s.search(report.ByOffered).Around(ctx, saturation.RateAt(closed, closed.Knee), s.open(connections))
	if err != nil {
		return nil, err
	}
	return []report.Curve{closed, s.finish(open, connections)}, nil
}

// search prints each stage.
func (s saturating) search(axis report.Axis) saturation.Search {
	fmt.Fprintf(s.out, "%24s %12s %10s %10s %8s\n", axis, "answers/s", "p50 µs", "p99 µs", "errors")
	return saturation.Search{Objective: s.objective, Done: func(p report.Point) {
		fmt.Fprintf(s.out, "%24.0f %12.0f %10.0f %10.0f %8d\n", p.X, p.Rate, p.P50, p.P99, p.Errors)
	}}
}

// finish names the curve and prints what was found.
func (s saturating) finish(c report.Curve, connections int) report.Curve {
	c.Hop, c.Variant = s.hop, s.variant
	c.Load = report.Load{
		Name: fmt.Sprintf("by %s", c.Axis), Generator: "openloop", Kind: report.Requests,
		Connections: connections, BodyBytes: int64(len(s.target.Body)),
	}
	fmt.Fprintf(s.out, "stopped: %s\n", c.Stop)
	if c.Knee != nil && (c.Axis == report.ByConnections || c.Axis == report.ByOffered) {
		fmt.Fprintf(s.out, "knee at %.0f: %.0f/s with a usable p99\n", *c.Knee, saturation.RateAt(c, c.Knee))
	}
	if c.Fit != nil {
		fmt.Fprintf(s.out, "scalability law: %.0f/s alone, contention %.3g, coherence %.3g, best at %.0f connections (R² %.3f)\n",
			c.Fit.Lambda, c.Fit.Alpha, c.Fit.Beta, saturation.Best(*c.Fit), c.Fit.RSquared)
	}
	fmt.Fprintln(s.out)
	return c
}

func (s saturating) closed(ctx context.Context, connections float64) (saturation.Stage, error) {
	return s.measure(ctx, s.target, openloop.Load{Connections: int(connections)})
}

func (s saturating) body(ctx context.Context, size float64) (saturation.Stage, error) {
	t := s.target
	t.Body = make([]byte, int(size))
	// The pattern is endless.
	_, _ = io.ReadFull(sampleapp.Pattern(int64(size)), t.Body)
	return s.measure(ctx, t, openloop.Load{Connections: s.most})
}

// enclaves starts so many behind one host and loads them all alike.
func (s saturating) enclaves(ctx context.Context, number float64) (stage saturation.Stage, err error) {
	running, err := hops.StartEnclaves(ctx, s.tools, int(number))
	if err != nil {
		return saturation.Stage{}, err
	}
	defer func() { err = errors.Join(err, running.Stop()) }()
	// What is measured is where the time goes, not who answers.
	t := openloop.Target{URL: running.URL, Dial: running.Dial, Timeout: time.Minute, TLS: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}}
	return s.measure(ctx, t, openloop.Load{Connections: s.most})
}

func (s saturating) open(connections int) saturation.Measure {
	return func(ctx context.Context, rate float64) (saturation.Stage, error) {
		return s.measure(ctx, s.target, openloop.Load{
			Arrivals: openloop.Arrivals{Process: openloop.Poisson, Rate: rate, Seed: 1}, Connections: connections, Patience: s.stage,
		})
	}
}

func (s saturating) measure(ctx context.Context, t openloop.Target, l openloop.Load) (saturation.Stage, error) {
	l.Warmup, l.Duration, l.Sleep = s.stage/3, s.stage, openloop.PreciseSleep
	r, err := openloop.Run(ctx, t, l)
	if err != nil {
		return saturation.Stage{}, err
	}
	if r.OK == 0 {
		return saturation.Stage{}, r.Clean()
	}
	micros := func(percentile float64) float64 {
		return float64(r.Latency.ValueAtPercentile(percentile)) / float64(time.Microsecond)
	}
	return saturation.Stage{
		Point: report.Point{
			Rate: r.Rate(), P50: micros(50), P99: micros(99), Errors: r.Sent - r.OK + r.Unsent, Latency: openloop.Summarise(r.Latency),
		},
		Sent: r.Sent + r.Unsent,
	}, nil
}

// A typed is the command that found something, and when it began.
type typed struct {
	name  string
	args  []string
	began time.Time
}

// addTo adds something to a report, and begins one where there is none.
func (c typed) addTo(ctx context.Context, path string, add func(*report.Report)) error {
	r, err := report.Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		r = &report.Report{
			Schema: report.Schema, Title: "bench " + c.name, Command: append([]string{"bench", c.name}, c.args...), Started: c.began,
			Source: measure.Source(ctx), Machine: measure.Machine(),
		}
	} else if err != nil {
		return err
	}
	r.Seconds += time.Since(c.began).Seconds()
	add(r)
	return report.Write(path, r)
}
