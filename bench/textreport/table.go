// Package textreport shows a report to somebody at a terminal: tables, lines that
// benchstat reads, and progress while it is made. It computes nothing;
// bench/statistics does, and bench/htmlreport draws.
package textreport

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/corridor-enclave/corridor/bench/report"
)

// A Group says how the results of a hop are shown.
type Group struct {
	Hop, About string
	Baseline   string // the variant that ratios are told against
}

// Table writes a table for each load of each group, then what was skipped and what
// has to be known. Every figure comes with its interval: ±x% is half of the width
// of the interval by the median.
func Table(w io.Writer, r *report.Report, groups []Group) error {
	p := &printer{w: w}
	p.line("%s, %s", r.Title, describe(r))
	for _, g := range groups {
		for _, load := range loadsOf(r, g.Hop) {
			p.load(r, g, load)
		}
	}
	for _, s := range r.Skipped {
		p.line("skipped  %s: %s%s", strings.TrimSuffix(s.Hop+"/"+s.Variant, "/"), s.Reason, prefixed(" (remedy: ", s.Remedy, ")"))
	}
	for _, text := range r.Warnings {
		p.line("note     %s", text)
	}
	return p.err
}

func prefixed(before, text, after string) string {
	if text == "" {
		return ""
	}
	return before + text + after
}

func describe(r *report.Report) string {
	commit := r.Source.Commit
	if len(commit) > 12 {
		commit = commit[:12]
	}
	if r.Source.Changed {
		commit += "+changes"
	}
	how := ""
	if r.Settings.Pinned {
		how += ", generators on a core of their own"
	}
	if r.Settings.Syscalls {
		how += ", system calls counted"
	}
	return fmt.Sprintf("commit %s, %s, %d x %s, Linux %s: %d rounds of %g s, seed %d%s, %.0f s in all",
		cmp.Or(commit, "unknown"), r.Source.Go, r.Machine.Cores, cmp.Or(r.Machine.CPU, r.Machine.Arch), r.Machine.Kernel,
		r.Settings.Rounds, r.Settings.Seconds, r.Settings.Seed, how, r.Seconds)
}

// loadsOf returns the loads of a hop in the order of their results.
func loadsOf(r *report.Report, hop string) []report.Load {
	var loads []report.Load
	for _, result := range r.Results {
		if result.Hop == hop && !slices.ContainsFunc(loads, func(l report.Load) bool { return l.Name == result.Load.Name }) {
			loads = append(loads, result.Load)
		}
	}
	return loads
}

type printer struct {
	w   io.Writer
	err error
}

func (p *printer) line(format string, a ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", a...)
	}
}

// columns returns the metrics that a load's table has, of those that its results
// have, under the names that fit its kind.
func columns(kind report.Kind) []column {
	per := map[report.Kind]string{report.Requests: "request", report.Bulk: "Gbit", report.Documents: "document", report.Idle: "connection"}[kind]
	time, unit := "µs", 1.0
	if kind == report.Bulk { // of which an operation is a large one
		time, unit = "ms", 1e3
	}
	return []column{
		{report.Rate, per + "s/s", 1, 0},
		{report.Throughput, "Gbit/s", 1, 2},
		{report.P50, "p50 µs", 1, 0},
		{report.P99, "p99 µs", 1, 0},
		{report.CPU, "CPU " + time + "/" + per, unit, 1},
		{report.OutsideCPU, "outside", unit, 1},
		{report.User, "user", unit, 1},
		{report.System, "system", unit, 1},
		{report.Switches, "switches/" + per, 1, 2},
		{report.Syscalls, "syscalls/" + per, 1, 2},
		{report.Allocs, "allocs/" + per, 1, 1},
		{report.RSS, "RSS MiB", 1 << 20, 1},
		{report.Outside, "KiB outside/" + per, 1 << 10, 2},
		{report.Inside, "KiB inside", 1 << 10, 2},
	}
}

type column struct {
	metric report.Metric
	title  string
	unit   float64
	digits int
}

// load writes the table of one load: a line for each variant.
func (p *printer) load(r *report.Report, g Group, load report.Load) {
	var rows []report.Result
	for _, result := range r.Results {
		if result.Hop == g.Hop && result.Load.Name == load.Name {
			rows = append(rows, result)
		}
	}
	shown := slices.DeleteFunc(columns(load.Kind), func(c column) bool {
		return !slices.ContainsFunc(rows, func(r report.Result) bool { _, ok := r.Summary[c.metric]; return ok })
	})
	p.line("\n%s, %s by %s: %s", g.Hop, strings.TrimSuffix(load.Name, " by "+load.Generator), load.Generator, g.About)
	t := tabwriter.NewWriter(p.w, 0, 0, 2, ' ', 0)
	fmt.Fprint(t, "  variant\t")
	for _, c := range shown {
		fmt.Fprint(t, c.title, "\t")
	}
	fmt.Fprintln(t)
	for _, row := range rows {
		fmt.Fprint(t, "  ", row.Variant, "\t")
		for _, c := range shown {
			fmt.Fprint(t, c.cell(row), "\t")
		}
		fmt.Fprintln(t)
	}
	if err := t.Flush(); p.err == nil {
		p.err = err
	}
	p.ratios(r, rows, g.Baseline)
}

// cell writes a figure with its interval. User and system are parts of a figure
// that has one, and RSS hardly moves.
func (c column) cell(row report.Result) string {
	s, ok := row.Summary[c.metric]
	if !ok {
		if !slices.ContainsFunc(row.Samples, func(s report.Sample) bool { return s.Failure == "" }) {
			return "failed"
		}
		return "-"
	}
	text := fmt.Sprintf("%.*f", c.digits, s.Median/c.unit)
	if c.metric == report.OutsideCPU || c.metric == report.User || c.metric == report.System || c.metric == report.RSS || s.Median == 0 {
		return text
	}
	if s.N == 1 {
		return text + " ±?"
	}
	text += fmt.Sprintf(" ±%.0f%%", 50*(s.High-s.Low)/s.Median)
	if s.Noisy {
		text += "!"
	}
	return text
}
