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
	}
	r.warnOfNoise()
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

// warnOfNoise counts the figures that spread too much; the figures themselves are
// marked, so that one line for each metric of a hop is enough.
func (r *run) warnOfNoise() {
	for _, h := range r.plan.Hops {
		for _, m := range []report.Metric{report.CPU, report.Rate, report.Throughput, report.Outside, report.Inside} {
			noisy, all, widest := 0, 0, 0.0
			for _, result := range r.report.Results {
				s, ok := result.Summary[m]
				if result.Hop != h.Name || !ok {
					continue
				}
				if all++; s.Noisy {
					noisy, widest = noisy+1, max(widest, s.Spread)
				}
			}
			if noisy > 0 {
				r.warning("%s: too noisy to tell: %s in %d of %d figures, which are marked, spreads over up to %.0f %% of its median", h.Name, m, noisy, all, 100*widest)
			}
		}
	}
}

func (r *run) warning(format string, a ...any) {
	text := fmt.Sprintf(format, a...)
	r.report.Warnings = append(r.report.Warnings, text)
	r.progress.Note("warning: " + text)
}
