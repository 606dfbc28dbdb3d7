// Package exposition writes counters, gauges and histograms in the text format
// that Prometheus reads (version 0.0.4), for either end of the link. It keeps no
// registry: who is asked for a page collects what its parts tell and writes it.
// It does not count anything itself but for Histogram, and it serves nothing.
package exposition

import (
	"cmp"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// ContentType is the media type of a Page.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// MaxSamples bounds the samples of one family, a histogram counting as one.
// Those beyond are left out and counted: a page must not grow with what clients
// or enclaves do.
const MaxSamples = 1024

// droppedName is the family that tells what a page left out.
const droppedName = "corridor_metrics_dropped_samples"

// A Label is one dimension of a sample.
type Label struct{ Name, Value string }

// With returns a label.
func With(name, value string) Label { return Label{Name: name, Value: value} }

// A Page is what one scrape answers. It is made, filled and written by one
// goroutine. Bytes that the format does not allow in a name become '_', and in a
// value U+FFFD; a sample that is there already, or is of another kind than the
// others of its name, is left out and counted.
type Page struct {
	families map[string]*family
	dropped  int
}

// A family is all samples of one name.
type family struct {
	name, help, kind string
	samples          map[string][]line // by the text of the labels
}

// A line is one line of a sample: the name's suffix, the labels of the line and
// the value.
type line struct{ suffix, labels, value string }

// NewPage returns an empty page.
func NewPage() *Page { return &Page{families: make(map[string]*family)} }

// Counter adds a sample of something that only grows. By convention its name
// ends in _total.
func (p *Page) Counter(name, help string, value float64, labels ...Label) {
	p.add("counter", name, help, labels, []line{{value: number(value)}})
}

// Gauge adds a sample of something that goes up and down.
func (p *Page) Gauge(name, help string, value float64, labels ...Label) {
	p.add("gauge", name, help, labels, []line{{value: number(value)}})
}

// Histogram adds the buckets, the sum and the count of a histogram.
func (p *Page) Histogram(name, help string, s Snapshot, labels ...Label) {
	lines := make([]line, 0, len(s.Counts)+2)
	var sum uint64
	for i, n := range s.Counts {
		sum += n
		bound := "+Inf"
		if i < len(s.Bounds) {
			bound = number(float64(s.Bounds[i]) * s.Unit)
		}
		lines = append(lines, line{"_bucket", labelText(append(slices.Clip(labels), With("le", bound))), strconv.FormatUint(sum, 10)})
	}
	text := labelText(labels)
	lines = append(lines,
		line{"_sum", text, number(float64(s.Sum) * s.Unit)},
		line{"_count", text, strconv.FormatUint(sum, 10)})
	p.add("histogram", name, help, labels, lines)
}

// add files the lines of one sample.
func (p *Page) add(kind, name, help string, labels []Label, lines []line) {
	name = identifier(name)
	f := p.families[name]
	if f == nil {
		f = &family{name: name, help: help, kind: kind, samples: make(map[string][]line)}
		p.families[name] = f
	}
	key := labelText(labels)
	if _, taken := f.samples[key]; taken || f.kind != kind || len(f.samples) >= MaxSamples {
		p.dropped++
		return
	}
	if kind != "histogram" {
		lines[0].labels = key
	}
	f.samples[key] = lines
}

// WriteTo writes the page: families and samples in the order of their text, so
// that two pages can be compared. The last family tells what was left out.
func (p *Page) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(p.families)) {
		p.families[name].write(&b)
	}
	last := family{
		name: droppedName, kind: "gauge", help: "Samples that this page left out, because there were too many or they contradicted others.",
		samples: map[string][]line{"": {{value: strconv.Itoa(p.dropped)}}},
	}
	last.write(&b)
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

func (f *family) write(b *strings.Builder) {
	b.WriteString("# HELP " + f.name + " " + helpEscaper().Replace(valid(f.help)) + "\n")
	b.WriteString("# TYPE " + f.name + " " + f.kind + "\n")
	for _, key := range slices.Sorted(maps.Keys(f.samples)) {
		for _, l := range f.samples[key] {
			b.WriteString(f.name + l.suffix + l.labels + " " + l.value + "\n")
		}
	}
}

// labelText returns `{a="x",b="y"}`, sorted by name, or nothing without labels.
// Of two labels of the same name the first counts.
func labelText(labels []Label) string {
	if len(labels) == 0 {
		return ""
	}
	sorted := slices.Clone(labels)
	for i := range sorted {
		sorted[i].Name = strings.ReplaceAll(identifier(sorted[i].Name), ":", "_")
	}
	slices.SortStableFunc(sorted, func(a, b Label) int { return cmp.Compare(a.Name, b.Name) })
	sorted = slices.CompactFunc(sorted, func(a, b Label) bool { return a.Name == b.Name })
	var b strings.Builder
	between := byte('{')
	for _, l := range sorted {
		b.WriteByte(between)
		b.WriteString(l.Name + `="` + valueEscaper().Replace(valid(l.Value)) + `"`)
		between = ','
	}
	b.WriteByte('}')
	return b.String()
}

// identifier returns a name in the alphabet of names: [a-zA-Z_:][a-zA-Z0-9_:]*.
func identifier(name string) string {
	if name == "" {
		return "_"
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r == '_', r == ':', 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
			return r
		}
		return '_'
	}, digitFree(name))
}

// digitFree puts a '_' before a name that begins with a digit.
func digitFree(name string) string {
	if '0' <= name[0] && name[0] <= '9' {
		return "_" + name
	}
	return name
}

func valid(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }

func helpEscaper() *strings.Replacer  { return strings.NewReplacer(`\`, `\\`, "\n", `\n`) }
func valueEscaper() *strings.Replacer { return strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`) }

// number writes a value so that whole numbers stay whole.
func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
