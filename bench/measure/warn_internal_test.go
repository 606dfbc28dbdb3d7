package measure

import (
	"slices"
	"testing"

	"github.com/corridor-enclave/corridor/bench/hops"
	"github.com/corridor-enclave/corridor/bench/report"
)

// TestWarnOfNoise: one line for a metric of a hop, however many figures are noisy, and
// none where none is.
func TestWarnOfNoise(t *testing.T) {
	t.Parallel()
	result := func(hop string, cpu, rate report.Summary) report.Result {
		return report.Result{Hop: hop, Summary: map[report.Metric]report.Summary{report.CPU: cpu, report.Rate: rate}}
	}
	noisy, wide, calm := report.Summary{Noisy: true, Spread: 0.3}, report.Summary{Noisy: true, Spread: 0.8}, report.Summary{Spread: 0.1}
	r := &run{
		progress: silent{}, plan: Plan{Hops: []hops.Hop{{Name: "proxy"}, {Name: "link"}}},
		report: &report.Report{Results: []report.Result{result("proxy", noisy, calm), result("proxy", wide, calm), result("proxy", calm, calm), result("link", calm, noisy)}},
	}
	r.warnOfNoise()
	want := []string{
		"proxy: too noisy to tell: cpu in 2 of 3 figures, which are marked, spreads over up to 80 % of its median",
		"link: too noisy to tell: rate in 1 of 1 figures, which are marked, spreads over up to 30 % of its median",
	}
	if !slices.Equal(r.report.Warnings, want) {
		t.Errorf("%q", r.report.Warnings)
	}
}
