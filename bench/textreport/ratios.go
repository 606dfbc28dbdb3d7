package textreport

import (
	"fmt"
	"slices"
	"text/tabwriter"

	"github.com/corridor-enclave/corridor/bench/report"
	"github.com/corridor-enclave/corridor/bench/statistics"
)

// ratios writes what the other variants are by the baseline, round by round: the
// median of the rounds' ratios and its interval.
func (p *printer) ratios(r *report.Report, rows []report.Result, baseline string) {
	i := slices.IndexFunc(rows, func(r report.Result) bool { return r.Variant == baseline })
	if i < 0 || len(rows) < 2 || len(rows[i].Summary) == 0 {
		return
	}
	metrics := slices.DeleteFunc(
		[]report.Metric{report.Rate, report.Throughput, report.P50, report.P99, report.CPU, report.Outside, report.Inside},
		func(m report.Metric) bool { _, ok := rows[i].Summary[m]; return !ok })
	t := tabwriter.NewWriter(p.w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "  by %s\t", baseline)
	for _, m := range metrics {
		fmt.Fprint(t, m, "\t")
	}
	fmt.Fprintln(t)
	for _, row := range rows {
		if row.Variant == baseline {
			continue
		}
		fmt.Fprint(t, "  ", row.Variant, "\t")
		for _, m := range metrics {
			fmt.Fprint(t, ratio(rows[i], row, m, r.Settings.Seed), "\t")
		}
		fmt.Fprintln(t)
	}
	if err := t.Flush(); p.err == nil {
		p.err = err
	}
}

func ratio(baseline, row report.Result, m report.Metric, seed uint64) string {
	var a, b []float64 // of rounds in which both succeeded
	for _, sa := range baseline.Samples {
		for _, sb := range row.Samples {
			va, both := sa.Values[m]
			if vb, ok := sb.Values[m]; both && ok && sa.Round == sb.Round {
				a, b = append(a, va), append(b, vb)
			}
		}
	}
	s, ok := statistics.PairedRatio(a, b, seed)
	if !ok {
		return "-"
	}
	if s.N == 1 {
		return fmt.Sprintf("x%.2f (?)", s.Median)
	}
	return fmt.Sprintf("x%.2f (%.2f-%.2f)", s.Median, s.Low, s.High)
}
