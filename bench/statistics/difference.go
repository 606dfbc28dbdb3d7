package statistics

import (
	"math"
	"slices"

	"github.com/corridor-enclave/corridor/bench/report"
)

// MinSamples is how many samples each side of a comparison needs: with fewer no
// order of them is improbable enough to prove anything.
const MinSamples = 5

// significance is the largest probability of seeing such samples by chance that
// counts as a difference. One run compares dozens of figures, so that the usual
// 5 % would cry wolf in every one.
const significance = 0.01

// A Difference is how samples B compare to samples A.
type Difference struct {
	A, B float64 // medians
	// Ratio is B by A; it lies between Low and High with 95 %.
	Ratio, Low, High float64
	// P is the probability that samples of one and the same thing are at least as
	// far apart as these (Mann and Whitney, two-sided, exact).
	P float64
	// Enough is false if either side has fewer than MinSamples; then nothing is
	// Real.
	Enough bool
	// Real says that all three hold: P is small, the interval excludes 1, and the
	// medians are further apart than the floor.
	Real bool
}

// Compare compares two sets of samples, neither empty. The floor is the smallest
// relative change worth telling.
func Compare(a, b []float64, floor float64, seed uint64) Difference {
	d := Difference{A: Median(a), B: Median(b), P: mannWhitney(a, b)}
	d.Ratio = ratio(d.B, d.A)
	rng := newRand(seed)
	draws := make([]float64, resamples)
	bufA, bufB := make([]float64, len(a)), make([]float64, len(b))
	for i := range draws {
		draws[i] = ratio(drawnMedian(rng, b, bufB), drawnMedian(rng, a, bufA))
	}
	slices.Sort(draws)
	d.Low, d.High = min(d.Ratio, quantile(draws, 0.025)), max(d.Ratio, quantile(draws, 0.975))
	d.Enough = len(a) >= MinSamples && len(b) >= MinSamples
	apart := d.Low > 1 || d.High < 1
	d.Real = d.Enough && d.P < significance && apart && math.Abs(d.Ratio-1) > floor
	return d
}

// ratio treats nothing and nothing as equal, and something by nothing as huge but
// finite, because JSON knows no infinity.
func ratio(b, a float64) float64 {
	switch {
	case a == b:
		return 1
	case a == 0:
		return math.MaxFloat64
	}
	return b / a
}

// mannWhitney returns the two-sided p of the rank sum test. It is exact without
// ties; with ties, which count as half, it is slightly too large, so that a
// difference is rather missed than invented.
func mannWhitney(a, b []float64) float64 {
	u := 0.0 // pairs in which b is larger
	for _, x := range a {
		for _, y := range b {
			switch {
			case y > x:
				u++
			case y == x:
				u += 0.5
			}
		}
	}
	pairs := float64(len(a) * len(b))
	extreme := int(math.Ceil(min(u, pairs-u))) // towards the middle
	ways := arrangements(len(a), len(b))
	var total, beyond float64
	for value, n := range ways {
		total += n
		if value <= extreme {
			beyond += n
		}
	}
	return min(1, 2*beyond/total)
}

// arrangements counts, for each value of U, the orders of n and m samples that
// have it: the last one is from the first set, with m below it, or from the
// second.
func arrangements(n, m int) []float64 {
	counts := make([][][]float64, n+1)
	for i := range counts {
		counts[i] = make([][]float64, m+1)
		for j := range counts[i] {
			counts[i][j] = make([]float64, i*j+1)
			if i == 0 || j == 0 {
				counts[i][j][0] = 1
				continue
			}
			for u, c := range counts[i-1][j] {
				counts[i][j][u+j] += c
			}
			for u, c := range counts[i][j-1] {
				counts[i][j][u] += c
			}
		}
	}
	return counts[n][m]
}

// PairedRatio summarises b by a where each pair is of one round, and so of nearly the
// same moment: what the machine did to both of them cancels out. Pairs in which a is
// not above zero are left out; without any left, ok is false.
func PairedRatio(a, b []float64, seed uint64) (s report.Summary, ok bool) {
	var ratios []float64
	for i := range min(len(a), len(b)) {
		if a[i] > 0 {
			ratios = append(ratios, b[i]/a[i])
		}
	}
	if len(ratios) == 0 {
		return report.Summary{}, false
	}
	return Summarise(ratios, seed), true
}
