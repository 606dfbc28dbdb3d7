package htmlreport

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"strings"
)

// The size of a chart in its own units; the page scales it to its width.
const (
	width, height = 560.0, 270.0
	left, right   = 58.0, 24.0
	top, bottom   = 12.0, 46.0
)

// A series is one line of a chart.
type series struct {
	name   string
	color  int // 0 to 7; above that a grey
	dashed bool
	dots   bool
	points []point
}

type point struct{ x, y float64 }

// A lineChart draws series over two scales.
type lineChart struct {
	label, x, y    string
	xScale, yScale scale
	series         []series
	marks          []mark
}

// A mark is a vertical line with a word.
type mark struct {
	x    float64
	text string
}

func (c lineChart) px(v float64) float64 { return left + c.xScale.at(v)*(width-left-right) }
func (c lineChart) py(v float64) float64 { return height - bottom - c.yScale.at(v)*(height-top-bottom) }

func (c lineChart) svg() template.HTML {
	var b drawing
	b.open(c.label, height)
	for _, t := range c.yScale.ticks {
		b.line("rule", left, c.py(t.at), width-right, c.py(t.at))
		b.text("tick end", left-8, c.py(t.at)+4, t.text)
	}
	for _, t := range c.xScale.ticks {
		b.line("tickmark", c.px(t.at), height-bottom, c.px(t.at), height-bottom+4)
		b.text("tick middle", c.px(t.at), height-bottom+18, t.text)
	}
	b.line("axis", left, height-bottom, width-right, height-bottom)
	b.text("name middle", (left+width-right)/2, height-8, c.x)
	for _, m := range c.marks {
		b.line("mark", c.px(m.x), top, c.px(m.x), height-bottom)
		anchor, shift := "tick", 5.0
		if c.xScale.at(m.x) > 0.8 {
			anchor, shift = "tick end", -5
		}
		b.text(anchor, c.px(m.x)+shift, height-bottom-6, m.text)
	}
	for _, s := range c.series {
		b.path(s, c.px, c.py)
		if !s.dots {
			continue
		}
		for _, p := range s.points {
			b.dot(s.color, c.px(p.x), c.py(p.y), fmt.Sprintf("%s: %s %s, %s %s", s.name, short(p.y), c.y, short(p.x), c.x))
		}
	}
	return b.close()
}

// A barChart draws horizontal bars of one unit, each of one part or stacked.
type barChart struct {
	label, unit string
	bars        []bar
}

type bar struct {
	label     string
	parts     []part
	low, high float64 // of the interval, drawn if high is above low
	note      string
}

type part struct {
	name  string
	color int
	value float64
}

// Bars are so high, and their labels so wide.
const (
	barHeight, barGap = 20.0, 12.0
	labelWidth        = 150.0
	valueWidth        = 84.0
)

func (b bar) total() (sum float64) {
	for _, p := range b.parts {
		sum += p.value
	}
	return sum
}

func (c barChart) svg() template.HTML {
	low, high := 0.0, 0.0
	for _, b := range c.bars {
		low, high = min(low, b.total(), b.low), max(high, b.total(), b.high)
	}
	s := linear(low, high)
	px := func(v float64) float64 { return labelWidth + s.at(v)*(width-labelWidth-valueWidth) }
	tall := top + float64(len(c.bars))*(barHeight+barGap) + 34
	var d drawing
	d.open(c.label, tall)
	for _, t := range s.ticks {
		d.line("rule", px(t.at), top-4, px(t.at), tall-34)
		d.text("tick middle", px(t.at), tall-18, t.text)
	}
	d.text("name middle", (labelWidth+width-valueWidth)/2, tall-3, c.unit)
	for i, b := range c.bars {
		y := top + float64(i)*(barHeight+barGap)
		d.text("tick end", labelWidth-8, y+14, clip(b.label))
		at := 0.0
		for _, p := range b.parts {
			x0, x1 := px(min(at, at+p.value)), px(max(at, at+p.value))
			d.rect(p.color, x0, y, x1-x0, fmt.Sprintf("%s, %s: %s %s", b.label, p.name, short(p.value), c.unit))
			at += p.value
		}
		end := px(at)
		if b.high > b.low {
			d.line("whisker", px(b.low), y+barHeight/2, px(b.high), y+barHeight/2)
			d.line("whisker", px(b.low), y+5, px(b.low), y+barHeight-5)
			d.line("whisker", px(b.high), y+5, px(b.high), y+barHeight-5)
			end = max(end, px(b.high))
		}
		d.text("value", max(end, px(0))+6, y+14, short(at)+b.note)
	}
	d.line("axis", px(0), top-4, px(0), tall-34)
	return d.close()
}

// clip shortens a label to what fits beside the bars; the table has it whole.
func clip(s string) string {
	const most = 23
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

// A drawing is an SVG under construction. All text goes through html.EscapeString,
// since names come from a file.
type drawing struct{ b strings.Builder }

func (d *drawing) open(label string, tall float64) {
	fmt.Fprintf(&d.b, `<svg viewBox="0 0 %g %g" role="img" aria-label="%s">`, width, tall, html.EscapeString(label))
}

func (d *drawing) close() template.HTML {
	d.b.WriteString("</svg>")
	return template.HTML(d.b.String()) // made here, of escaped text and numbers
}

func (d *drawing) line(class string, x1, y1, x2, y2 float64) {
	fmt.Fprintf(&d.b, `<line class="%s" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`, class, x1, y1, x2, y2)
}

func (d *drawing) text(class string, x, y float64, text string) {
	fmt.Fprintf(&d.b, `<text class="%s" x="%.1f" y="%.1f">%s</text>`, class, x, y, html.EscapeString(text))
}

func (d *drawing) rect(color int, x, y, w float64, title string) {
	fmt.Fprintf(&d.b, `<rect class="f%d" x="%.1f" y="%.1f" width="%.1f" height="%.0f"><title>%s</title></rect>`,
		shade(color), x, y, max(w, 0), barHeight, html.EscapeString(title))
}

func (d *drawing) dot(color int, x, y float64, title string) {
	fmt.Fprintf(&d.b, `<circle class="f%d" cx="%.1f" cy="%.1f" r="3.5"><title>%s</title></circle>`, shade(color), x, y, html.EscapeString(title))
}

func (d *drawing) path(s series, px, py func(float64) float64) {
	dashed := ""
	if s.dashed {
		dashed = " dashed"
	}
	fmt.Fprintf(&d.b, `<path class="s%d%s" d="`, shade(s.color), dashed)
	for i, p := range s.points {
		fmt.Fprintf(&d.b, "%c%.1f %.1f", "ML"[min(i, 1)], px(p.x), py(p.y))
	}
	fmt.Fprintf(&d.b, `"><title>%s</title></path>`, html.EscapeString(s.name))
}

// colors is how many hues can be told apart; what comes behind is grey.
const colors = 8

func shade(color int) int { return min(max(color, 0), colors) }

// extent is the range of values, ignoring what cannot be drawn.
func extent(all []series, value func(point) float64, above float64) (low, high float64) {
	low, high = math.Inf(1), math.Inf(-1)
	for _, s := range all {
		for _, p := range s.points {
			if v := value(p); v > above && !math.IsInf(v, 0) {
				low, high = min(low, v), max(high, v)
			}
		}
	}
	if low > high {
		return 1, 2
	}
	return low, high
}
