package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/corridor-enclave/corridor/bench/hops"
	"github.com/corridor-enclave/corridor/bench/ledger"
	"github.com/corridor-enclave/corridor/bench/measure"
	"github.com/corridor-enclave/corridor/bench/report"
	"github.com/corridor-enclave/corridor/bench/textreport"
	"github.com/corridor-enclave/corridor/tapstack/settings"
)

// usualHops are what `bench run` measures if it is not asked for more; with the
// usual rounds it takes some eight minutes.
const usualHops = "proxy,link,way"

// runRun measures what it is asked for.
func runRun(ctx context.Context, args, environ []string, stdout io.Writer) error {
	return runHops(ctx, "run", usualHops, args, environ, stdout)
}

// runOne returns a command that measures these hops.
func runOne(command, which string) func(context.Context, []string, []string, io.Writer) error {
	return func(ctx context.Context, args, environ []string, stdout io.Writer) error {
		return runHops(ctx, command, which, args, environ, stdout)
	}
}

// A runSettings is how to measure, as flags.
type runSettings struct {
	bin, out, lines         *string
	hops, variants, loads   *[]string
	rounds, seconds, warmup *int
	seed                    *uint64
	full, pin, syscalls     *bool
	kernelVSOCK             *bool
	within                  *time.Duration
}

func declareRun(s *settings.Set, self, which string) runSettings {
	text := func(v string) (string, error) { return v, nil }
	return runSettings{
		bin:         settings.Var(s, "bin", filepath.Dir(self), "`folder` of the binaries", text),
		out:         settings.Var(s, "out", "", "`file` for the report, JSON", text),
		lines:       settings.Var(s, "lines", "", "`file` for lines that benchstat reads", text),
		hops:        settings.Var(s, "hops", which, "`names` of hops with commas between: "+strings.Join(hops.Names(), ","), parseNames),
		variants:    settings.Var(s, "variants", "", "`names` of variants to keep; all if empty", parseNames),
		loads:       settings.Var(s, "loads", "", "`names` of loads to keep; all if empty", parseNames),
		rounds:      settings.Var(s, "rounds", "5", "how many `times` each is measured", parseCount),
		seconds:     settings.Var(s, "seconds", "1", "how many `seconds` each load takes", parseCount),
		warmup:      settings.Var(s, "warmup", "1", "how many `seconds` each variant is loaded before", parseCount),
		seed:        settings.Var(s, "seed", "1", "`number` that determines the order and the intervals", parseSeed),
		full:        settings.Bool(s, "full", "measure every hop, in ten rounds unless told otherwise"),
		kernelVSOCK: settings.Bool(s, "kernel-vsock", "have both ends meet by the kernel's VSOCK, whose ports are then taken: what bench vm does in its machine"),
		within:      settings.Var(s, "within", "0s", "how `long` all rounds together may take: leave out those for which there is no time; 0s: all of them", time.ParseDuration),
		pin:         settings.Bool(s, "pin", "give the generators the last core, and the others to what they load"),
		syscalls:    settings.Bool(s, "syscalls", "count all system calls, which costs each of them some 100 ns; needs root"),
	}
}

func runHops(ctx context.Context, command, which string, args, environ []string, stdout io.Writer) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	s := settings.New("bench " + command)
	rs := declareRun(s, self, which)
	if done, err := load(s, args, environ, stdout); done {
		return err
	}
	if *rs.full && !s.IsSet("hops") {
		*rs.hops = hops.Names()
	}
	if *rs.full && !s.IsSet("rounds") {
		*rs.rounds = 10
	}
	chosen, err := hops.Find(*rs.hops)
	if err != nil {
		return usageError{err}
	}
	if err := known(chosen, *rs.variants, *rs.loads); err != nil {
		return usageError{err}
	}
	if err := ledger.Exists(); err != nil {
		return err
	}
	progress := textreport.NewProgress(os.Stderr, textreport.Terminal(os.Stderr), time.Now)
	r, err := measure.Run(ctx, measure.Plan{
		Title: "bench " + command, Command: slices.Concat([]string{"bench", command}, args),
		Hops: chosen, Variants: *rs.variants, Loads: *rs.loads,
		Rounds: *rs.rounds, Seconds: *rs.seconds, Warmup: *rs.warmup, Seed: *rs.seed,
		Tools: hops.Tools{Bin: *rs.bin, KernelVSOCK: *rs.kernelVSOCK}, Pin: *rs.pin, Within: *rs.within, Syscalls: *rs.syscalls,
	}, progress)
	if r == nil {
		return err
	}
	return errors.Join(err, rs.show(r, chosen, stdout), failedEverywhere(r))
}

// show writes the table, and the files that were asked for.
func (rs runSettings) show(r *report.Report, chosen []hops.Hop, stdout io.Writer) error {
	var groups []textreport.Group
	for _, h := range chosen {
		groups = append(groups, textreport.Group{Hop: h.Name, About: h.About, Baseline: h.Baseline})
	}
	errs := []error{textreport.Table(stdout, r, groups)}
	if *rs.out != "" {
		errs = append(errs, report.Write(*rs.out, r))
	}
	if *rs.lines != "" {
		f, err := os.Create(*rs.lines)
		if err != nil {
			return errors.Join(append(errs, fmt.Errorf("bench: %w", err))...)
		}
		errs = append(errs, textreport.Benchstat(f, r), f.Close())
	}
	return errors.Join(errs...)
}

// failedEverywhere is an error if there is no result, or one has not one sample that
// counts: the exit code must not say that all is well.
func failedEverywhere(r *report.Report) error {
	var errs []error
	if len(r.Results) == 0 {
		errs = append(errs, errors.New("bench: nothing could be measured"))
	}
	for _, result := range r.Results {
		if len(result.Samples) > 0 && len(result.Summary) == 0 {
			errs = append(errs, fmt.Errorf("bench: %s: no sample succeeded: %s", result.Key(), result.Samples[0].Failure))
		}
	}
	return errors.Join(errs...)
}

func parseNames(v string) ([]string, error) {
	names := strings.Split(v, ",")
	for i, n := range names {
		if names[i] = strings.TrimSpace(n); names[i] == "" {
			return nil, errors.New("a name is empty")
		}
	}
	return names, nil
}

func commas(names []string) string { return strings.Join(names, ",") }

func parseCount(v string) (int, error) {
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 || n > 1000 {
		return 0, errors.New("not a number from 0 to 1000")
	}
	return n, nil
}

// known refuses names that no hop has: a typo must not pass for an empty result.
func known(chosen []hops.Hop, variants, loads []string) error {
	has := map[string]bool{}
	for _, h := range chosen {
		for _, v := range h.Variants {
			has["variant "+v.Name] = true
		}
		for _, l := range h.Loads {
			has["load "+l.Name] = true
		}
	}
	var errs []error
	for kind, names := range map[string][]string{"variant ": variants, "load ": loads} {
		for _, n := range names {
			if !has[kind+n] {
				errs = append(errs, fmt.Errorf("no %s%q in these hops", kind, n))
			}
		}
	}
	return errors.Join(errs...)
}
