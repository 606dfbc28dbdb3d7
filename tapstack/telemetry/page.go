package telemetry

import "github.com/corridor-enclave/corridor/tapstack/exposition"

// Write adds values to a page, by the names of Metrics. Those that have none are left out.
func Write(page *exposition.Page, values map[uint16]uint64, labels ...exposition.Label) {
	for _, m := range Metrics() {
		v, told := values[m.Number]
		if !told {
			continue
		}
		add := page.Gauge
		if m.Counter {
			add = page.Counter
		}
		add(m.Name, m.Help, float64(v)*m.Unit, append(m.Labels, labels...)...)
	}
	for _, h := range Histograms() {
		if s, ok := h.Of(values); ok {
			page.Histogram(h.Name, h.Help, s, labels...)
		}
	}
}
