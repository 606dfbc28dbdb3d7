// Package statistics says how far figures from a few rounds on a machine that is
// never quiet can be believed: medians with intervals, and whether two sets of
// samples differ. It assumes no distribution, and draws every random number from
// a seed, so that the same samples always get the same verdict.
package statistics

import (
	"math"
	"math/rand/v2"
	"slices"

	"github.com/corridor-enclave/corridor/bench/report"
)

const (
	// resamples is how often the bootstrap draws. The ends of a 95 % interval are
	// then means of some 50 draws beyond them.
	resamples = 2000
	// NoisyBeyond is the spread, distance of the quartiles by the median, above
	// which a figure cannot tell variants apart that people would call different.
	NoisyBeyond = 0.25
)

// Median returns the middle of the values, NaN if there are none.
func Median(values []float64) float64 { return Quantile(values, 0.5) }

// Quantile returns the value that the share q, 0 to 1, of the values does not exceed,
// NaN if there are none.
func Quantile(values []float64, q float64) float64 { return quantile(sorted(values), q) }

// Summarise condenses the values of one metric, at least one.
func Summarise(values []float64, seed uint64) report.Summary {
	s := sorted(values)
	median := quantile(s, 0.5)
	low, high := interval(values, seed)
	summary := report.Summary{N: len(s), Median: median, Low: low, High: high}
	if median > 0 {
		summary.Spread = (quantile(s, 0.75) - quantile(s, 0.25)) / median
	}
	summary.Noisy = summary.Spread > NoisyBeyond
	return summary
}

// interval returns where the median lies with 95 %, by the percentile bootstrap
// (Efron): medians of samples drawn from the sample. It always holds the median
// itself, which with few values the drawn ones might not.
func interval(values []float64, seed uint64) (low, high float64) {
	draws := make([]float64, resamples)
	rng := newRand(seed)
	buf := make([]float64, len(values))
	for i := range draws {
		draws[i] = drawnMedian(rng, values, buf)
	}
	slices.Sort(draws)
	median := Median(values)
	return min(median, quantile(draws, 0.025)), max(median, quantile(draws, 0.975))
}

// drawnMedian draws as many values as there are, with replacement, into buf.
func drawnMedian(rng *rand.Rand, values, buf []float64) float64 {
	for i := range buf {
		buf[i] = values[rng.IntN(len(values))]
	}
	slices.Sort(buf)
	return quantile(buf, 0.5)
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0x636f727269646f72)) }

func sorted(values []float64) []float64 {
	s := slices.Clone(values)
	slices.Sort(s)
	return s
}

// quantile interpolates between the neighbours in sorted values (Hyndman and Fan,
// definition 7, which most tools use).
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 == len(sorted) {
		return sorted[i]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}
