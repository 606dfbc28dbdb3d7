package measure

import (
	"fmt"

	"github.com/corridor-enclave/corridor/bench/report"
)

// foreignBeyond is the share of the machine that others may use during a sample
// before the reader has to know.
const foreignBeyond = 0.10

// warn writes down what a reader has to know before believing the figures.
func (r *run) warn() {
	busy, samples := 0, 0
	for _, result := range r.report.Results {
		failed := 0
		for _, s := range result.Samples {
			samples++
			if s.Foreign > foreignBeyond {
				busy++
			}
			if s.Failure != "" {
				failed++
			}
		}
		if failed > 0 {
			r.warning("%s: %d of %d samples failed", result.Key(), failed, len(result.Samples))
		}
		for _, m := range []report.Metric{report.CPU, report.Rate, report.Throughput} {
			if s, ok := result.Summary[m]; ok && s.Noisy {
				r.warning("%s: too noisy to tell: %s spreads over %.0f %% of its median", result.Key(), m, 100*s.Spread)
			}
		}
	}
	if busy > 0 {
		r.warning("the machine was not ours alone: in %d of %d samples others used more than %.0f %% of it", busy, samples, 100*foreignBeyond)
	}
	if r.report.Source.Changed {
		r.warning("the checkout had changes that its commit does not hold")
	}
	if r.plan.Rounds < 5 {
		r.warning("%d rounds are too few to tell a difference from noise", r.plan.Rounds)
	}
}

func (r *run) warning(format string, a ...any) {
	text := fmt.Sprintf(format, a...)
	r.report.Warnings = append(r.report.Warnings, text)
	r.progress.Note("warning: " + text)
}
