package htmlreport

import (
	"fmt"
	"slices"
	"strings"

	"github.com/corridor-enclave/corridor/bench/report"
)

// hues give each variant one colour throughout the page.
type hues map[string]int

// newHues gives the first colours to what is ours.
func newHues(r *report.Report) hues {
	var names []string
	for _, x := range r.Results {
		names = append(names, x.Variant)
	}
	for _, c := range r.Curves {
		names = append(names, c.Variant)
	}
	h := hues{}
	for _, ours := range []bool{true, false} {
		for _, n := range names {
			if _, known := h[n]; !known && strings.HasPrefix(n, "corridor") == ours {
				h[n] = len(h)
			}
		}
	}
	return h
}

func fill(color int, name string) key { return key{fmt.Sprintf("k%d", shade(color)), name} }

// A group is all variants of one hop under one load.
type group struct {
	hop, load string
	kind      report.Kind
	results   []report.Result
}

func (g group) title() string { return g.hop + ", " + g.load }

// groups are in the order of the report.
func groups(r *report.Report) []group {
	var all []group
	for _, x := range r.Results {
		i := slices.IndexFunc(all, func(g group) bool { return g.hop == x.Hop && g.load == x.Load.Name })
		if i < 0 {
			i = len(all)
			all = append(all, group{hop: x.Hop, load: x.Load.Name, kind: x.Load.Kind})
		}
		all[i].results = append(all[i].results, x)
	}
	return all
}

// per names one operation of a kind.
func per(k report.Kind) string {
	return map[report.Kind]string{report.Requests: "request", report.Bulk: "Gbit", report.Documents: "document", report.Idle: "connection"}[k]
}

func stacks(r *report.Report) []figure {
	parts := []struct {
		metric report.Metric
		name   string
	}{{report.User, "user mode"}, {report.System, "kernel"}, {report.AppCPU, "app"}}
	var figures []figure
	for _, g := range groups(r) {
		c := barChart{label: "CPU time, " + g.title(), unit: "µs of CPU for one " + per(g.kind)}
		for _, x := range g.results {
			b := bar{label: x.Variant}
			for i, p := range parts {
				if s, ok := x.Summary[p.metric]; ok {
					b.parts = append(b.parts, part{p.name, i, s.Median})
				}
			}
			if len(b.parts) > 0 {
				c.bars = append(c.bars, b)
			}
		}
		if len(c.bars) == 0 {
			continue
		}
		f := figure{Title: g.title(), Chart: c.svg()}
		for i, p := range parts {
			f.Legend = append(f.Legend, fill(i, p.name))
		}
		figures = append(figures, f)
	}
	return figures
}

func peers(r *report.Report, h hues) []figure {
	var figures []figure
	for _, g := range groups(r) {
		for _, m := range []struct {
			metric     report.Metric
			name, unit string
		}{
			{report.Rate, "rate", per(g.kind) + "s a second: more is better"},
			{report.Throughput, "throughput", "Gbit/s: more is better"},
			{report.P99, "p99", "µs until 99 % were answered: less is better"},
			{report.Outside, "memory outside", "bytes of the parent's memory for one " + per(g.kind) + ": less is better"},
			{report.Inside, "memory inside", "bytes of the enclave's memory for one " + per(g.kind) + ": less is better"},
		} {
			c := barChart{label: m.name + ", " + g.title(), unit: m.unit}
			for _, x := range g.results {
				s, ok := x.Summary[m.metric]
				if !ok {
					continue
				}
				b := bar{label: x.Variant, parts: []part{{m.name, h[x.Variant], s.Median}}, low: s.Low, high: s.High}
				if s.Noisy {
					b.note = " noisy"
				}
				c.bars = append(c.bars, b)
			}
			if len(c.bars) > 0 {
				figures = append(figures, figure{Title: g.title() + ": " + m.name, Chart: c.svg()})
			}
		}
	}
	return figures
}

func causal(r *report.Report) []figure {
	rate := barChart{label: "gain in rate", unit: "% more operations a second"}
	p99 := barChart{label: "change of p99", unit: "% change of p99: less is better"}
	for _, c := range r.Causal {
		label := fmt.Sprintf("%s %.0f %% faster", c.Hop, 100*c.Speedup)
		for _, x := range []struct {
			chart *barChart
			i     report.Interval
		}{{&rate, c.Rate}, {&p99, c.P99}} {
			x.chart.bars = append(x.chart.bars, bar{
				label: label, parts: []part{{x.chart.label, 0, 100 * x.i.Value}}, low: 100 * x.i.Low, high: 100 * x.i.High,
			})
		}
	}
	if len(r.Causal) == 0 {
		return nil
	}
	return []figure{{Title: "Rate", Chart: rate.svg()}, {Title: "p99", Chart: p99.svg()}}
}
