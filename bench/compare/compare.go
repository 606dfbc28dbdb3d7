// Package compare tells what changed from one report to another, beyond noise. Two
// runs are never of the same machine: it is faster in one minute than in the next.
// So what is ours is judged by how much more it changed than the controls, which are
// the variants that did not change. It measures nothing.
package compare

import (
	"fmt"
	"math"
	"slices"

	"github.com/corridor-enclave/corridor/bench/report"
	"github.com/corridor-enclave/corridor/bench/statistics"
)

// A Change is one metric of one result, in both reports.
type Change struct {
	Hop, Variant, Load string
	Metric             report.Metric
	// Difference is what the samples say, with those of the second report
	// corrected by Drift.
	statistics.Difference
	// Drift is by how much the controls of this hop and load changed, 1 if there
	// are none: the machine's doing.
	Drift float64
	// Floor is the smallest relative change that counts: the metric's own, or that
	// by which the controls disagree if that is more.
	Floor float64
}

// Worse reports whether a real change is one for the worse.
func (c Change) Worse() bool {
	return c.Real && (c.Ratio < 1) == c.Metric.HigherIsBetter()
}

// Name names what changed.
func (c Change) Name() string {
	return fmt.Sprintf("%s/%s, %s: %s", c.Hop, c.Variant, c.Load, c.Metric)
}

// A Verdict is what two reports say together.
type Verdict struct {
	// Changes are all figures of ours that both have, real or not, in the order of
	// the second report. A control is no judge of itself.
	Changes []Change
	// Notes are what keeps figures from being compared, or believed.
	Notes []string
}

// Reports compares report b with report a. Only metrics that are named count; none
// means all.
func Reports(a, b *report.Report, metrics ...report.Metric) Verdict {
	var v Verdict
	if a.Machine != b.Machine {
		v.note("the machines differ (%s, %d cores; %s, %d cores): only what has controls can be compared",
			a.Machine.CPU, a.Machine.Cores, b.Machine.CPU, b.Machine.Cores)
	}
	pairs := v.pair(a, b)
	if len(metrics) == 0 {
		metrics = report.Metrics()
	}
	seed := b.Settings.Seed
	for _, p := range pairs {
		if !p.result.Ours {
			continue
		}
		for _, m := range metrics {
			if c, ok := p.change(m, pairs, seed); ok {
				v.Changes = append(v.Changes, c)
			}
		}
	}
	if len(v.Changes) == 0 {
		v.note("nothing of ours is in both")
	}
	if slices.ContainsFunc(v.Changes, func(c Change) bool { return !c.Enough }) {
		v.note("some figures have fewer than %d samples: no change can be told from noise", statistics.MinSamples)
	}
	return v
}

func (v *Verdict) note(format string, a ...any) { v.Notes = append(v.Notes, fmt.Sprintf(format, a...)) }

// A pair is one result in both reports.
type pair struct {
	result report.Result // of the second
	a, b   map[report.Metric][]float64
}

// pair finds the results that both reports have, and notes those that only one has.
func (v *Verdict) pair(a, b *report.Report) []pair {
	var pairs []pair
	matched := map[string]bool{}
	for _, rb := range b.Results {
		i := slices.IndexFunc(a.Results, func(ra report.Result) bool { return ra.Key() == rb.Key() })
		if i < 0 {
			v.note("%s is in the second report only", rb.Key())
			continue
		}
		ra := a.Results[i]
		matched[ra.Key()] = true
		if ra.Load != rb.Load {
			v.note("%s: the loads differ, %+v and %+v", rb.Key(), ra.Load, rb.Load)
			continue
		}
		pairs = append(pairs, pair{rb, ra.Values(), rb.Values()})
	}
	for _, ra := range a.Results {
		if !matched[ra.Key()] {
			v.note("%s is in the first report only", ra.Key())
		}
	}
	return pairs
}

// change compares one metric, if both have it.
func (p pair) change(m report.Metric, all []pair, seed uint64) (Change, bool) {
	a, b := p.a[m], p.b[m]
	if len(a) == 0 || len(b) == 0 {
		return Change{}, false
	}
	drift, scatter := p.drift(m, all)
	corrected := slices.Clone(b)
	for i := range corrected {
		corrected[i] /= drift
	}
	c := Change{
		Hop: p.result.Hop, Variant: p.result.Variant, Load: p.result.Load.Name,
		Metric: m, Drift: drift, Floor: max(m.Floor(), scatter),
	}
	c.Difference = statistics.Compare(a, corrected, c.Floor, seed)
	return c, true
}

// drift returns by how much the controls under the same load changed, and how far
// from that the one went that went furthest.
// Counts of objects and bytes do not depend on the machine's speed.
func (p pair) drift(m report.Metric, all []pair) (drift, scatter float64) {
	if m == report.Allocs || m == report.AllocBytes || m == report.RSS || m == report.Outside || m == report.Inside {
		return 1, 0
	}
	var ratios []float64
	for _, other := range all {
		same := other.result.Hop == p.result.Hop && other.result.Load.Name == p.result.Load.Name
		if !same || other.result.Ours {
			continue
		}
		a, b := statistics.Median(other.a[m]), statistics.Median(other.b[m])
		if a > 0 && b > 0 { // false for a metric that it lacks, too
			ratios = append(ratios, b/a)
		}
	}
	if len(ratios) == 0 {
		return 1, 0
	}
	drift = statistics.Median(ratios)
	for _, r := range ratios {
		scatter = max(scatter, math.Abs(r/drift-1))
	}
	return drift, scatter
}
