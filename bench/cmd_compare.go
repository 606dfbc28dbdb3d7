package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/corridor-enclave/corridor/bench/compare"
	"github.com/corridor-enclave/corridor/bench/hops"
	"github.com/corridor-enclave/corridor/bench/ledger"
	"github.com/corridor-enclave/corridor/bench/measure"
	"github.com/corridor-enclave/corridor/bench/report"
	"github.com/corridor-enclave/corridor/bench/textreport"
	"github.com/corridor-enclave/corridor/tapstack/settings"
)

// runCompare says what changed from one report to another.
func runCompare(_ context.Context, args, _ []string, stdout io.Writer) error {
	if len(args) == 1 && (args[0] == "-h" || args[0] == "--help") {
		_, err := fmt.Fprintln(stdout, "usage: bench compare BEFORE.json AFTER.json")
		return err
	}
	if len(args) != 2 || strings.HasPrefix(args[0], "-") || strings.HasPrefix(args[1], "-") {
		return usageError{errors.New("want two reports: bench compare BEFORE.json AFTER.json")}
	}
	before, err := report.Read(args[0])
	if err != nil {
		return err
	}
	after, err := report.Read(args[1])
	if err != nil {
		return err
	}
	return compare.Reports(before, after).Show(stdout)
}

// The gate's own measurement: one load, many short rounds, and two controls for each
// hop.
const (
	gateLoad   = "16 connections"
	gateRounds = 12
)

// gateHops are what the gate watches over, each with what is ours and two controls.
func gateHops() ([]hops.Hop, error) {
	kept := map[string][]string{
		"proxy":  {"direct", "tuned", "corridor"},
		"link":   {"direct", "relay", "corridor"},
		"stream": {"haproxy", "relay", "corridor"},
	}
	chosen, err := hops.Find(slices.Collect(maps.Keys(kept)))
	for i, h := range chosen {
		chosen[i].Variants = slices.DeleteFunc(h.Variants, func(v hops.Variant) bool { return !slices.Contains(kept[h.Name], v.Name) })
	}
	return chosen, err
}

// runGate fails if what is ours costs more than when the baseline was made, in CPU
// or allocations, beyond noise. Rates are not looked at: they are the machine's.
func runGate(ctx context.Context, args, environ []string, stdout io.Writer) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	s := settings.New("bench gate")
	text := func(v string) (string, error) { return v, nil }
	baseline := settings.Var(s, "baseline", filepath.Join("bench", "baseline.json"), "`file` with the report to compare with", text)
	given := settings.Var(s, "report", "", "judge the report in this `file` instead of measuring", text)
	bin := settings.Var(s, "bin", filepath.Dir(self), "`folder` of the binaries", text)
	update := settings.Bool(s, "update", "make what is measured the baseline")
	if done, err := load(s, args, environ, stdout); done {
		return err
	}
	var now *report.Report
	if *given != "" {
		now, err = report.Read(*given)
	} else {
		now, err = measureGate(ctx, *bin, args)
	}
	if err != nil {
		return err
	}
	if *update {
		return report.Write(*baseline, slim(now))
	}
	before, err := report.Read(*baseline)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w (remedy: bench gate --update)", err)
	}
	if err != nil {
		return err
	}
	return judge(compare.Reports(before, now, report.CPU, report.Allocs, report.AllocBytes), stdout)
}

// judge shows the verdict, and is an error if it is bad or there is none.
func judge(v compare.Verdict, stdout io.Writer) error {
	err := v.Show(stdout)
	ours := 0
	for _, c := range v.Changes {
		if c.Enough {
			ours++
		}
		if c.Worse() {
			err = errors.Join(err, fmt.Errorf("bench gate: %s is worse: %.4g before, %.4g now", c.Name(), c.A, c.B))
		}
	}
	if ours == 0 {
		err = errors.Join(err, errors.New("bench gate: nothing of ours could be compared"))
	}
	return err
}

func measureGate(ctx context.Context, bin string, args []string) (*report.Report, error) {
	if err := ledger.Exists(); err != nil {
		return nil, err
	}
	chosen, err := gateHops()
	if err != nil {
		return nil, err
	}
	r, err := measure.Run(ctx, measure.Plan{
		Title: "bench gate", Command: append([]string{"bench", "gate"}, args...), Hops: chosen,
		Loads:  []string{gateLoad},
		Rounds: gateRounds, Seconds: 1, Warmup: 1, Seed: 1, Tools: hops.Tools{Bin: bin},
	}, textreport.NewProgress(os.Stderr, textreport.Terminal(os.Stderr), time.Now))
	if err == nil {
		forgetRare(r)
	}
	return r, err
}

// forgetRare leaves out what relays allocate: so little for a request that what else
// the process does, however slow the machine is, decides the figure.
func forgetRare(r *report.Report) {
	for _, result := range r.Results {
		if result.Hop == "proxy" {
			continue
		}
		for _, m := range []report.Metric{report.Allocs, report.AllocBytes} {
			delete(result.Summary, m)
			for _, s := range result.Samples {
				delete(s.Values, m)
			}
		}
	}
}

// slim leaves out what a comparison does not need, since a baseline is kept with the
// sources.
func slim(r *report.Report) *report.Report {
	kept := *r
	kept.Results = nil
	kept.Command = []string{"bench", "gate", "--update"} // where files were is nobody's business
	for _, result := range r.Results {
		samples := make([]report.Sample, len(result.Samples))
		for i, s := range result.Samples {
			samples[i] = s
			samples[i].Processes, samples[i].Latency = nil, nil
		}
		result.Samples = samples
		kept.Results = append(kept.Results, result)
	}
	return &kept
}
