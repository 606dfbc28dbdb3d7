package exposition_test

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/corridor-enclave/corridor/tapstack/exposition"
)

// read lets Prometheus' own parser judge a page.
func read(t testing.TB, p *exposition.Page) (string, map[string]*dto.MetricFamily) {
	t.Helper()
	var b strings.Builder
	n, err := p.WriteTo(&b)
	if err != nil || n != int64(b.Len()) {
		t.Fatalf("WriteTo = %d, %v; want %d", n, err, b.Len())
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(b.String()))
	if err != nil {
		t.Fatalf("%v in\n%s", err, &b)
	}
	return b.String(), families
}

func TestPageLeavesOutContradictions(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		fill    func(*exposition.Page)
		dropped float64
		kept    int
	}{
		{"the same sample twice", func(p *exposition.Page) {
			p.Counter("x", "h", 1, exposition.With("a", "1"), exposition.With("b", "2"))
			p.Counter("x", "h", 2, exposition.With("b", "2"), exposition.With("a", "1"))
		}, 1, 1},
		{"another kind", func(p *exposition.Page) {
			p.Counter("x", "h", 1)
			p.Gauge("x", "h", 1, exposition.With("a", "1"))
		}, 1, 1},
		{"too many", func(p *exposition.Page) {
			for i := range exposition.MaxSamples + 7 {
				p.Gauge("x", "h", 1, exposition.With("client", fmt.Sprint(i)))
			}
		}, 7, exposition.MaxSamples},
	} {
		p := exposition.NewPage()
		tt.fill(p)
		_, families := read(t, p)
		if got := families["corridor_metrics_dropped_samples"].GetMetric()[0].GetGauge().GetValue(); got != tt.dropped {
			t.Errorf("%s: %v samples dropped, want %v", tt.name, got, tt.dropped)
		}
		if got := len(families["x"].GetMetric()); got != tt.kept {
			t.Errorf("%s: %d samples kept, want %d", tt.name, got, tt.kept)
		}
	}
}

// FuzzPage: whatever the texts and the value are, the page parses, and the label's
// value comes back.
func FuzzPage(f *testing.F) {
	f.Add("name", "help", "label", "value", 1.5)
	f.Add("", "", "", "", math.NaN())
	f.Add("0x\n", "a\\b\nc", "le:", "\"\\\n\xff\u2028", math.Inf(1))
	f.Fuzz(func(t *testing.T, name, help, label, value string, v float64) {
		p := exposition.NewPage()
		p.Gauge(name, help, v, exposition.With(label, value))
		_, families := read(t, p)
		for name, family := range families {
			if name == "corridor_metrics_dropped_samples" {
				continue
			}
			m := family.GetMetric()[0]
			got := m.GetGauge().GetValue()
			if got != v && !(math.IsNaN(got) && math.IsNaN(v)) {
				t.Errorf("value %v became %v", v, got)
			}
			if got := m.GetLabel()[0].GetValue(); got != strings.ToValidUTF8(value, "\uFFFD") {
				t.Errorf("label %q became %q", value, got)
			}
		}
	})
}

// TestPageIsStable: the order of filling does not show.
func TestPageIsStable(t *testing.T) {
	t.Parallel()
	fill := func(p *exposition.Page, names []string) {
		for _, name := range names {
			for _, port := range names {
				p.Counter("corridor_"+name+"_total", "Of "+name+".", 3, exposition.With("port", port))
			}
		}
	}
	names := []string{"b", "a", "c"}
	first, second := exposition.NewPage(), exposition.NewPage()
	fill(first, names)
	slices.Sort(names)
	fill(second, names)
	one, families := read(t, first)
	two, _ := read(t, second)
	if one != two {
		t.Errorf("two pages of the same samples:\n%s\n%s", one, two)
	}
	want := []string{"corridor_a_total", "corridor_b_total", "corridor_c_total", "corridor_metrics_dropped_samples"}
	if got := slices.Sorted(maps.Keys(families)); !slices.Equal(got, want) {
		t.Errorf("families %v, want %v", got, want)
	}
	if !strings.Contains(one, "# HELP corridor_a_total Of a.\n# TYPE corridor_a_total counter\ncorridor_a_total{port=\"a\"} 3\n") {
		t.Errorf("page\n%s", one)
	}
}

func TestHistogram(t *testing.T) {
	t.Parallel()
	h := exposition.NewHistogram(0.5, 10, 20)
	var observing sync.WaitGroup
	for range 4 {
		observing.Go(func() {
			for _, v := range []uint64{0, 10, 11, 20, 21, 1000} {
				h.Observe(v)
			}
		})
	}
	observing.Wait()
	p := exposition.NewPage()
	p.Histogram("h", "help", h.Snapshot(), exposition.With("road", "link"))
	text, families := read(t, p)
	got := families["h"].GetMetric()[0].GetHistogram()
	if got.GetSampleCount() != 24 || got.GetSampleSum() != 4*1062*0.5 {
		t.Errorf("count %d, sum %v in\n%s", got.GetSampleCount(), got.GetSampleSum(), text)
	}
	for i, want := range []struct {
		bound float64
		count uint64
	}{{5, 8}, {10, 16}, {math.Inf(1), 24}} {
		if b := got.GetBucket()[i]; b.GetUpperBound() != want.bound || b.GetCumulativeCount() != want.count {
			t.Errorf("bucket %d: %v; want %+v", i, b, want)
		}
	}
}

func TestQuantile(t *testing.T) {
	t.Parallel()
	h := exposition.NewDurations()
	if got := h.Snapshot().Quantile(0.5); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
	for range 98 {
		h.ObserveDuration(time.Millisecond)
	}
	h.ObserveDuration(-time.Second)
	h.ObserveDuration(time.Minute)
	s := h.Snapshot()
	for q, want := range map[float64]float64{0.01: 10e-6, 0.5: 1e-3, 0.99: 1e-3, 1: 10} {
		if got := s.Quantile(q); math.Abs(got-want) > want/1e9 {
			t.Errorf("quantile %v = %v, want %v", q, got, want)
		}
	}
	if s.Count() != 100 {
		t.Errorf("count %d, want 100", s.Count())
	}
}

func TestObserveAllocatesNothing(t *testing.T) {
	h := exposition.NewDurations()
	if n := testing.AllocsPerRun(100, func() { h.ObserveDuration(time.Millisecond) }); n != 0 {
		t.Errorf("%v allocations for one value", n)
	}
}

func BenchmarkObserve(b *testing.B) {
	h := exposition.NewDurations()
	b.ReportAllocs()
	for b.Loop() {
		h.ObserveDuration(3 * time.Millisecond)
	}
}

func TestProcess(t *testing.T) {
	t.Parallel()
	before := exposition.ReadProcess()
	if before.Goroutines == 0 || before.HeapBytes == 0 || before.RuntimeBytes < before.HeapBytes || before.Allocations == 0 {
		t.Errorf("%+v", before)
	}
	kept := make([]byte, 1<<20)
	after := exposition.ReadProcess()
	if after.AllocatedBytes-before.AllocatedBytes < uint64(len(kept)) || after.Collections < before.Collections {
		t.Errorf("%+v after a MiB, %+v before", after, before)
	}
	p := exposition.NewPage()
	after.Write(p)
	exposition.WriteBuild(p, exposition.With("side", "host"))
	if text, families := read(t, p); len(families) < 10 || !strings.Contains(text, `corridor_build_info{go="go1.`) {
		t.Errorf("page\n%s", text)
	}
}
