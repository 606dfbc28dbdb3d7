package htmlreport

import (
	"fmt"
	"math"
	"slices"

	"github.com/corridor-enclave/corridor/bench/report"
	"github.com/corridor-enclave/corridor/bench/saturation"
)

// fewPoints is how many a distribution has at most that comes from quantiles.
const fewPoints = 5

func distributions(r *report.Report, h hues) []figure {
	var figures []figure
	for _, g := range groups(r) {
		var lines []series
		caption := ""
		for _, x := range g.results {
			var all []*report.Latency
			for _, s := range x.Samples {
				all = append(all, s.Latency)
			}
			points := cumulate(all)
			if len(points) < 2 {
				continue
			}
			few := len(points) <= fewPoints
			if few {
				caption = "Of what is drawn with dots the generator tells these quantiles and nothing between."
			}
			lines = append(lines, series{name: x.Variant, color: h[x.Variant], points: points, dots: few})
		}
		if len(lines) > 0 {
			figures = append(figures, distribution(g.title(), caption, lines))
		}
	}
	return figures
}

func distribution(title, caption string, lines []series) figure {
	low, high := extent(lines, func(p point) float64 { return p.x }, 0)
	c := lineChart{
		label: "latency, " + title, x: "µs", y: "nines",
		xScale: decades(low, high), yScale: ninesScale(), series: lines,
	}
	return figure{Title: title, Caption: caption, Legend: legend(lines), Chart: c.svg()}
}

// cumulate adds up the latencies of all rounds. Where a generator keeps no
// histogram its quantiles are drawn, of the last round that has them.
func cumulate(all []*report.Latency) []point {
	counts := map[float64]int64{}
	var total int64
	var quantiles []report.Quantile
	for _, l := range all {
		if l == nil {
			continue
		}
		for _, b := range l.Buckets {
			counts[b.Micros] += b.Count
			total += b.Count
		}
		quantiles = l.Quantiles
	}
	var points []point
	if total == 0 {
		for _, q := range quantiles {
			points = append(points, point{q.Micros, nines(q.Q)})
		}
		return points
	}
	edges := make([]float64, 0, len(counts))
	for e := range counts {
		edges = append(edges, e)
	}
	slices.Sort(edges)
	var seen int64
	for i, e := range edges {
		seen += counts[e]
		p := point{e, nines(float64(seen) / float64(total))}
		if n := len(points); n > 0 && i < len(edges)-1 && p.x < 1.01*points[n-1].x && p.y-points[n-1].y < 0.02 {
			continue // could not be told from the one before
		}
		points = append(points, p)
	}
	return points
}

func legend(lines []series) []key {
	var keys []key
	for _, s := range lines {
		k := fill(s.color, s.name)
		if s.dashed {
			k.Class += " thin"
		}
		keys = append(keys, k)
	}
	return keys
}

// An axisKind says how curves along an axis are drawn.
type axisKind struct {
	name    string
	against string
	base    float64 // of the scale's ticks; 0 means linear
}

// sizes is the base of an axis of sizes, which begins at zero all the same.
const sizes = 16

func kindOf(a report.Axis) axisKind {
	switch a {
	case report.ByConnections:
		return axisKind{"connections", "concurrency", 2}
	case report.ByOffered:
		return axisKind{"requests a second, offered", "offered load", 0}
	case report.ByBody:
		return axisKind{"bytes of body", "the size of bodies", sizes}
	case report.ByEnclaves:
		return axisKind{"enclaves", "the number of enclaves", 0}
	}
	return axisKind{string(a), string(a), 0}
}

// curves draws all variants of a hop along one axis together.
func curves(r *report.Report, h hues) []figure {
	var figures []figure
	type place struct {
		hop  string
		axis report.Axis
	}
	var places []place
	for _, c := range r.Curves {
		if p := (place{c.Hop, c.Axis}); len(c.Points) > 0 && !slices.Contains(places, p) {
			places = append(places, p)
		}
	}
	for _, p := range places {
		var these []report.Curve
		for _, c := range r.Curves {
			if c.Hop == p.hop && c.Axis == p.axis && len(c.Points) > 0 {
				these = append(these, c)
			}
		}
		figures = append(figures, rates(p.hop, these, h), latencies(p.hop, these, h))
		figures = append(figures, stageDistributions(p.hop, these)...)
	}
	return figures
}

func rates(hop string, all []report.Curve, h hues) figure {
	k := kindOf(all[0].Axis)
	var lines []series
	var marks []mark
	caption := ""
	for _, c := range all {
		s := series{name: c.Variant, color: h[c.Variant], dots: true}
		for _, p := range c.Points {
			s.points = append(s.points, point{p.X, p.Rate})
		}
		lines = append(lines, s)
		if c.Fit != nil {
			lines = append(lines, fitted(c, h))
			caption += fmt.Sprintf("%s by the scalability law: contention %.3g, coherence %.3g, R² %.2f. ", c.Variant, c.Fit.Alpha, c.Fit.Beta, c.Fit.RSquared)
		}
		if c.Knee != nil && k.base != sizes {
			marks = append(marks, mark{*c.Knee, "knee"})
		}
		if c.Stop != "" {
			caption += fmt.Sprintf("%s stopped %s. ", c.Variant, c.Stop)
		}
	}
	_, high := extent(lines, func(p point) float64 { return p.y }, 0)
	chart := lineChart{label: "rate of " + hop, x: k.name, y: "a second", xScale: k.scale(lines), yScale: linear(0, high), series: lines, marks: marks}
	return figure{Title: hop + ": answers a second against " + k.against, Caption: caption, Legend: legend(lines), Chart: chart.svg()}
}

// fitted draws the law between the first and the last point.
func fitted(c report.Curve, h hues) series {
	s := series{name: c.Variant + ", fit", color: h[c.Variant], dashed: true}
	first, last := c.Points[0].X, c.Points[len(c.Points)-1].X
	const steps = 60
	for i := range steps + 1 {
		x := first * math.Pow(last/first, float64(i)/steps)
		s.points = append(s.points, point{x, saturation.Predict(*c.Fit, x)})
	}
	return s
}

// latencies draws p50 and p99 of each variant.
func latencies(hop string, all []report.Curve, h hues) figure {
	k := kindOf(all[0].Axis)
	var lines []series
	for _, c := range all {
		p99 := series{name: c.Variant + ", p99", color: h[c.Variant], dots: true}
		p50 := series{name: c.Variant + ", p50", color: h[c.Variant], dots: true, dashed: true}
		for _, p := range c.Points {
			if p.P50 > 0 && p.P99 > 0 {
				p99.points = append(p99.points, point{p.X, p.P99})
				p50.points = append(p50.points, point{p.X, p.P50})
			}
		}
		lines = append(lines, p99, p50)
	}
	low, high := extent(lines, func(p point) float64 { return p.y }, 0)
	chart := lineChart{label: "latency of " + hop, x: k.name, y: "µs", xScale: k.scale(lines), yScale: decades(low, high), series: lines}
	return figure{Title: hop + ": latency in µs against " + k.against, Legend: legend(lines), Chart: chart.svg()}
}

// scale spans all points. A size of zero has no place on a logarithmic scale and
// gets the one below the smallest.
func (k axisKind) scale(lines []series) scale {
	low, high := extent(lines, func(p point) float64 { return p.x }, 0)
	switch k.base {
	case 0:
		return linear(0, high)
	case sizes:
		s := powers(low/sizes, high, sizes, size)
		s.ticks[0].text = "0"
		return s
	}
	return powers(low, high, k.base, short)
}

// stageDistributions draws the latencies of up to six stages of each curve.
func stageDistributions(hop string, all []report.Curve) []figure {
	var figures []figure
	for _, c := range all {
		every := (len(c.Points) + 5) / 6
		var lines []series
		for i := 0; i < len(c.Points); i += every {
			p := c.Points[i]
			name := short(p.X) + " " + kindOf(c.Axis).name
			if c.Axis == report.ByBody {
				name = size(p.X) + " of body"
			}
			if points := cumulate([]*report.Latency{p.Latency}); len(points) > 1 {
				lines = append(lines, series{name: name, color: len(lines), points: points})
			}
		}
		if len(lines) > 0 {
			figures = append(figures, distribution(hop+", "+c.Variant+": latency at some stages", "", lines))
		}
	}
	return figures
}
