package saturation

import (
	"errors"
	"math"

	"github.com/corridor-enclave/corridor/bench/report"
)

// errTooFew reports that there are fewer points than the law has parameters.
var errTooFew = errors.New("saturation: a fit needs three points with a rate and different loads")

// Fit fits the Universal Scalability Law to rates X at concurrencies N. Its inverse
// is linear in three unknowns,
//
//	N/X = a + b·(N-1) + c·N·(N-1)     lambda = 1/a, alpha = b/a, beta = c/a
//
// which are found by least squares of the relative error, such that none is below
// zero: a negative contention has no meaning and hides a bad measurement.
func Fit(points []report.Point) (report.USL, error) {
	var rows [][3]float64
	distinct := map[float64]bool{}
	for _, p := range points {
		if p.X < 1 || p.Rate <= 0 {
			continue
		}
		distinct[p.X] = true
		weight := p.Rate / p.X // makes the right side of every row 1
		rows = append(rows, [3]float64{weight, weight * (p.X - 1), weight * p.X * (p.X - 1)})
	}
	if len(distinct) < 3 {
		return report.USL{}, errTooFew
	}
	best, least := [3]float64{}, math.Inf(1)
	for _, used := range [][]int{{0}, {0, 1}, {0, 2}, {0, 1, 2}} {
		unknowns, ok := leastSquares(rows, used)
		if !ok {
			continue
		}
		if r := residual(rows, unknowns); r < least {
			best, least = unknowns, r
		}
	}
	fit := report.USL{Lambda: 1 / best[0], Alpha: best[1] / best[0], Beta: best[2] / best[0]}
	fit.RSquared = explained(fit, points)
	return fit, nil
}

// Predict is the rate of the law at a concurrency.
func Predict(f report.USL, n float64) float64 {
	return f.Lambda * n / (1 + f.Alpha*(n-1) + f.Beta*n*(n-1))
}

// Best is the concurrency with the largest rate by the law, infinite if more is
// always better.
func Best(f report.USL) float64 {
	if f.Beta == 0 {
		return math.Inf(1)
	}
	return math.Sqrt(math.Max(0, 1-f.Alpha) / f.Beta)
}

// leastSquares solves rows·x = 1 for the used unknowns, the others being zero. It
// reports false where there is no solution with a first unknown above zero and the
// others not below.
func leastSquares(rows [][3]float64, used []int) (x [3]float64, ok bool) {
	n := len(used)
	normal := make([][]float64, n) // with the right side as last column
	for i := range normal {
		normal[i] = make([]float64, n+1)
		for _, row := range rows {
			for j := range n {
				normal[i][j] += row[used[i]] * row[used[j]]
			}
			normal[i][n] += row[used[i]]
		}
	}
	if !eliminate(normal) {
		return x, false
	}
	for i, u := range used {
		x[u] = normal[i][n]
		if !(x[u] >= 0) {
			return x, false
		}
	}
	return x, x[0] > 0
}

// eliminate is Gauss and Jordan's: it leaves the solution in the last column.
func eliminate(m [][]float64) bool {
	for i := range m {
		pivot := i
		for r := i + 1; r < len(m); r++ {
			if math.Abs(m[r][i]) > math.Abs(m[pivot][i]) {
				pivot = r
			}
		}
		m[i], m[pivot] = m[pivot], m[i]
		if m[i][i] == 0 {
			return false
		}
		for c := len(m[i]) - 1; c >= i; c-- {
			m[i][c] /= m[i][i]
		}
		for r := range m {
			if r == i {
				continue
			}
			for c := len(m[r]) - 1; c >= i; c-- {
				m[r][c] -= m[r][i] * m[i][c]
			}
		}
	}
	return true
}

func residual(rows [][3]float64, x [3]float64) (sum float64) {
	for _, row := range rows {
		d := row[0]*x[0] + row[1]*x[1] + row[2]*x[2] - 1
		sum += d * d
	}
	return sum
}

// explained is the share of the rates' variance that the fit explains.
func explained(f report.USL, points []report.Point) float64 {
	var mean, n float64
	for _, p := range points {
		mean += p.Rate
		n++
	}
	mean /= n
	var left, all float64
	for _, p := range points {
		left += math.Pow(p.Rate-Predict(f, p.X), 2)
		all += math.Pow(p.Rate-mean, 2)
	}
	if all == 0 {
		return 0
	}
	return 1 - left/all
}
