package htmlreport

import (
	"fmt"
	"strings"
	"time"

	"github.com/corridor-enclave/corridor/bench/report"
)

func subtitle(r *report.Report) string {
	commit := "outside of a checkout"
	if c := r.Source.Commit; c != "" {
		commit = "commit " + c[:min(12, len(c))]
		if r.Source.Changed {
			commit += " with changes"
		}
	}
	return fmt.Sprintf("%s, %s, %d cores, %s", r.Started.UTC().Format("2006-01-02 15:04 UTC"), commit, r.Machine.Cores, r.Machine.OS+"/"+r.Machine.Arch)
}

func facts(r *report.Report) []fact {
	f := []fact{
		{"command", strings.Join(r.Command, " ")},
		{"took", time.Duration(r.Seconds * float64(time.Second)).Round(time.Second).String()},
		{"Go", r.Source.Go},
		{"kernel", r.Machine.Kernel},
		{"CPU", r.Machine.CPU},
	}
	if r.Machine.Memory > 0 {
		f = append(f, fact{"memory", fmt.Sprintf("%.1f GiB", float64(r.Machine.Memory)/(1<<30))})
	}
	if s := r.Settings; s.Rounds > 0 {
		f = append(f, fact{"rounds", fmt.Sprintf("%d, each load %g s behind %g s of warm-up, order by seed %d", s.Rounds, s.Seconds, s.Warmup, s.Seed)})
	}
	for _, p := range r.Programs {
		text := p.Version
		if p.SHA256 != "" {
			text = strings.TrimSpace(text + " sha256:" + p.SHA256[:min(16, len(p.SHA256))])
		}
		f = append(f, fact{p.Name, text})
	}
	known := f[:0]
	for _, x := range f {
		if x.Value != "" {
			known = append(known, x)
		}
	}
	return known
}

// failures are the samples that count for nothing, and why.
func failures(r *report.Report) []string {
	var all []string
	for _, x := range r.Results {
		for _, s := range x.Samples {
			if s.Failure != "" {
				all = append(all, fmt.Sprintf("%s, round %d: %s", x.Key(), s.Round+1, s.Failure))
			}
		}
	}
	return all
}

// table has all results and those metrics that at least one of them has.
func table(r *report.Report) (columns []string, rows []row) {
	var used []report.Metric
	for _, m := range report.Metrics() {
		for _, x := range r.Results {
			if _, ok := x.Summary[m]; ok {
				used = append(used, m)
				columns = append(columns, m.Unit())
				break
			}
		}
	}
	for _, x := range r.Results {
		cells := make([]cell, len(used))
		for i, m := range used {
			if s, ok := x.Summary[m]; ok {
				cells[i] = cell{short(s.Median), short(s.Low) + " to " + short(s.High), s.Noisy}
			}
		}
		rows = append(rows, row{x.Hop, x.Variant, x.Load.Name, cells})
	}
	return columns, rows
}
