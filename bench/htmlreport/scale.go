package htmlreport

import (
	"math"
	"strconv"
	"strings"
)

// A scale places values between 0 and 1, and has ticks on the way.
type scale struct {
	low, high float64
	log       bool
	ticks     []tick
}

type tick struct {
	at   float64
	text string
}

// at returns where v lies; outside of the scale it is at its edge.
func (s scale) at(v float64) float64 {
	low, high := s.low, s.high
	if s.log {
		v, low, high = math.Log(max(v, math.SmallestNonzeroFloat64)), math.Log(low), math.Log(high)
	}
	return min(max((v-low)/(high-low), 0), 1)
}

// linear spans low and high with up to six steps of 1, 2 or 5 times a power of ten.
func linear(low, high float64) scale {
	if !(high > low) {
		high = low + 1
	}
	step := math.Pow(10, math.Floor(math.Log10((high-low)/4)))
	for _, times := range []float64{1, 2, 5, 10} {
		if (high-low)/(step*times) <= 6 {
			step *= times
			break
		}
	}
	s := scale{low: math.Floor(low/step) * step, high: math.Ceil(high/step) * step}
	for i := 0; ; i++ {
		v := s.low + float64(i)*step
		if v > s.high+step/2 {
			return s
		}
		s.ticks = append(s.ticks, tick{v, short(v)})
	}
}

// powers spans low and high with a tick at each power of the base, or at every
// so-manyth if these are too many. Both must be above zero.
func powers(low, high, base float64, text func(float64) string) scale {
	first, last := math.Floor(logBase(low, base)), math.Ceil(logBase(high, base))
	if last <= first {
		last = first + 1
	}
	s := scale{low: math.Pow(base, first), high: math.Pow(base, last), log: true}
	every := math.Ceil((last - first) / 10)
	for e := first; e <= last; e += every {
		v := math.Pow(base, e)
		s.ticks = append(s.ticks, tick{v, text(v)})
	}
	return s
}

// fewDecades is up to how many of them have ticks at 2 and 5 too.
const fewDecades = 3

// decades spans low and high, from one of 1, 2 and 5 times a power of ten to
// another. Both must be above zero.
func decades(low, high float64) scale {
	var steps []float64
	first, last := math.Floor(math.Log10(low)), math.Ceil(math.Log10(high))
	for e := first; e <= max(last, first+1); e++ {
		for _, times := range []float64{1, 2, 5} {
			steps = append(steps, times*math.Pow(10, e))
		}
	}
	for len(steps) > 2 && steps[1] <= low {
		steps = steps[1:]
	}
	for len(steps) > 2 && steps[len(steps)-2] >= high {
		steps = steps[:len(steps)-1]
	}
	s := scale{low: steps[0], high: steps[len(steps)-1], log: true}
	every := math.Ceil((last - first) / 10)
	for _, v := range steps {
		e := logBase(v, 10)
		if last-first <= fewDecades || e == math.Trunc(e) && math.Mod(e-first, every) == 0 {
			s.ticks = append(s.ticks, tick{v, short(v)})
		}
	}
	return s
}

// logBase is the logarithm, without the rounding error of an exact power.
func logBase(v, base float64) float64 {
	l := math.Log(v) / math.Log(base)
	if r := math.Round(l); math.Abs(l-r) < 1e-9 {
		return r
	}
	return l
}

// nines is how the tail of a distribution is drawn: 90 %, 99 % and 99.9 % are
// equally far apart.
func nines(q float64) float64 { return min(-math.Log10(max(1-q, 1e-9)), mostNines) }

// mostNines is where that scale ends.
const mostNines = 4

func ninesScale() scale {
	return scale{low: 0, high: mostNines, ticks: []tick{
		{0, "0 %"}, {nines(0.5), "50 %"}, {1, "90 %"}, {2, "99 %"}, {3, "99.9 %"}, {4, "99.99 %"},
	}}
}

// size writes a number of bytes.
func size(v float64) string {
	for _, unit := range []struct {
		bytes float64
		name  string
	}{{1 << 30, " GiB"}, {1 << 20, " MiB"}, {1 << 10, " KiB"}} {
		if v >= unit.bytes {
			return digits(v/unit.bytes) + unit.name
		}
	}
	return digits(v)
}

// short writes a number with three digits and a letter for its thousands.
func short(v float64) string {
	a := math.Abs(v)
	for _, unit := range []struct {
		from float64
		name string
	}{{1e9, " G"}, {1e6, " M"}, {1e4, " k"}} {
		if a >= unit.from {
			div := unit.from
			if unit.name == " k" {
				div = 1e3
			}
			return digits(v/div) + unit.name
		}
	}
	return digits(v)
}

// digits writes three significant ones, or all before the point.
func digits(v float64) string {
	a := math.Abs(v)
	switch {
	case a >= 100 || a == math.Trunc(a):
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 10:
		return trimZeros(strconv.FormatFloat(v, 'f', 1, 64))
	case a >= 0.01:
		return trimZeros(strconv.FormatFloat(v, 'f', 2, 64))
	}
	return strconv.FormatFloat(v, 'g', 2, 64)
}

func trimZeros(s string) string { return strings.TrimRight(strings.TrimRight(s, "0"), ".") }
