package htmlreport_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/bench/htmlreport"
	"github.com/corridor-enclave/corridor/bench/report"
	"github.com/corridor-enclave/corridor/bench/saturation"
)

// latency returns a distribution around so many µs.
func latency(median float64) *report.Latency {
	l := &report.Latency{}
	for i := range 60 {
		z := float64(i-30) / 10
		l.Buckets = append(l.Buckets, report.Bucket{Micros: median * math.Exp(z*0.5), Count: 1 + int64(10_000*math.Exp(-z*z/2))})
	}
	for _, q := range []float64{0.5, 0.9, 0.99} {
		l.Quantiles = append(l.Quantiles, report.Quantile{Q: q, Micros: median * (1 + 3*q*q)})
	}
	return l
}

func summary(v float64) report.Summary {
	return report.Summary{N: 5, Median: v, Low: 0.9 * v, High: 1.15 * v, Spread: 0.1, Noisy: v > 1000 && v < 2000}
}

func result(hop, variant string, kind report.Kind, slow float64) report.Result {
	x := report.Result{
		Hop: hop, Variant: variant, Load: report.Load{Name: "16 connections", Generator: "bombardier", Kind: kind, Connections: 16},
		Summary: map[report.Metric]report.Summary{
			report.User: summary(12 * slow), report.System: summary(25 * slow), report.AppCPU: summary(14), report.CPU: summary(37 * slow),
			report.P50: summary(150 * slow), report.P99: summary(900 * slow), report.Allocs: summary(41),
		},
	}
	if kind == report.Bulk {
		x.Summary[report.Throughput] = summary(9 / slow)
	} else {
		x.Summary[report.Rate] = summary(24_000 / slow)
	}
	for i := range 5 {
		x.Samples = append(x.Samples, report.Sample{Round: i, Sent: 1000, OK: 1000, Latency: latency(150 * slow)})
	}
	return x
}

func curve(hop, variant string, law report.USL) report.Curve {
	c := report.Curve{Hop: hop, Variant: variant, Axis: report.ByConnections, Fit: &law, Stop: "at 512, the last stage that was asked for"}
	for n := 1.0; n <= 512; n *= 2 {
		rate := saturation.Predict(law, n) * (1 + 0.03*math.Sin(n))
		p50 := n / rate * 1e6
		c.Points = append(c.Points, report.Point{X: n, Rate: rate, P50: p50, P99: 4 * p50, Latency: latency(p50)})
	}
	knee := 32.0
	c.Knee, c.Peak = &knee, &knee
	return c
}

// full returns a report with something of everything.
func full() *report.Report {
	r := &report.Report{
		Schema: report.Schema, Title: "bench run --full", Command: []string{"bench", "run", "--full"}, Started: time.Unix(1.8e9, 0), Seconds: 543,
		Source:   report.Source{Commit: strings.Repeat("0123456789", 4), Changed: true, Go: "go1.26.8"},
		Machine:  report.Machine{OS: "linux", Arch: "amd64", Kernel: "6.18.5", CPU: "Model <X> & Co", Cores: 2, Memory: 8 << 30},
		Settings: report.Settings{Rounds: 5, Seed: 1, Seconds: 3, Warmup: 1},
		Programs: []report.Program{{Name: "nginx", Version: "1.22.1", SHA256: strings.Repeat("ab", 32)}},
		Warnings: []string{"another process used 31 % of the cores during proxy/nginx"},
		Skipped:  []report.Skipped{{Hop: "proxy", Variant: "haproxy", Reason: "needs haproxy", Remedy: "apt-get install haproxy"}},
	}
	for i, v := range []string{"nginx", "corridor", "stock ReverseProxy", "stock ReverseProxy with everything tuned"} {
		r.Results = append(r.Results, result("proxy", v, report.Requests, 1+0.4*float64(i)))
	}
	for i, v := range []string{"corridor", "gvproxy"} {
		r.Results = append(r.Results, result("link", v, report.Bulk, 1+3*float64(i)))
		r.Curves = append(r.Curves, curve("way", v, report.USL{Lambda: 6000 / float64(1+2*i), Alpha: 0.2, Beta: 0.0008}))
	}
	for i := range r.Results[0].Samples {
		r.Results[0].Samples[i].Latency.Buckets = nil // as of a generator without a histogram
	}
	failed := result("attest", "corridor", report.Documents, 2)
	failed.Samples[1].Failure = "the module went away"
	r.Results = append(r.Results, failed)
	offered := report.Curve{Hop: "way", Variant: "corridor", Axis: report.ByOffered}
	for _, x := range []float64{0.5, 0.8, 0.95, 1, 1.1, 1.2} {
		p50 := 200 / max(0.02, 1.02-x)
		offered.Points = append(offered.Points, report.Point{X: 9000 * x, Rate: 9000 * min(x, 1), P50: p50, P99: 5 * p50, Latency: latency(p50)})
	}
	body := report.Curve{Hop: "way", Variant: "corridor", Axis: report.ByBody}
	for _, x := range []float64{0, 1 << 10, 1 << 14, 1 << 18, 1 << 22} {
		body.Points = append(body.Points, report.Point{X: x, Rate: 1e9 / (1e5 + x), P50: 100 + x/100, P99: 400 + x/50})
	}
	r.Curves = append(r.Curves, offered, body)
	for i, hop := range []string{"publish", "front", "proxy", "app"} {
		g := 0.02 * float64(i*i)
		r.Causal = append(r.Causal, report.Causal{
			Hop: hop, Speedup: 0.2, Rate: report.Interval{Value: g, Low: g - 0.03, High: g + 0.03}, P99: report.Interval{Value: -g, Low: -g - 0.05, High: -g + 0.05},
		})
	}
	return r
}

func render(t *testing.T, r *report.Report) string {
	t.Helper()
	var b bytes.Buffer
	if err := htmlreport.Write(&b, r); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestPageHasEverything(t *testing.T) {
	t.Parallel()
	page := render(t, full())
	for _, want := range []string{
		"<title>bench run --full</title>", "Where the microseconds go", "Side by side", "Latency", "Saturation", "If a hop were faster",
		"All figures", "How it was measured", "commit 012345678901 with changes", "Model &lt;X&gt; &amp; Co",
		"another process used 31 %", "proxy, haproxy: needs haproxy (remedy: apt-get install haproxy)", "attest/corridor/16 connections, round 2: the module went away",
		"contention 0.2", "knee", "99.9 %", "nginx", "sha256:abababababababab", "µs of CPU for one request", "µs of CPU for one Gbit", "Gbit/s",
		"the generator tells these quantiles and nothing between",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	// One colour a variant: corridor has the first wherever it is.
	if !strings.Contains(page, `<rect class="f0"`) || strings.Count(page, `<span class="k0"></span>corridor</li>`) < 3 {
		t.Error("corridor does not have the first colour throughout")
	}
	if n := strings.Count(page, "<svg "); n < 20 {
		t.Errorf("only %d charts", n)
	}
}

// TestPageNeedsNothingElse: it is opened from disk, sent by mail and read in ten
// years.
func TestPageNeedsNothingElse(t *testing.T) {
	t.Parallel()
	page := render(t, full())
	if found := regexp.MustCompile(`(?i)<(script|link|img|iframe|object|embed)|\ssrc=|url\(|@import|href="[^#]|\son\w+=`).FindString(page); found != "" {
		t.Errorf("the page holds %q", found)
	}
	if !strings.Contains(page, `content="default-src 'none'; style-src 'unsafe-inline'"`) {
		t.Error("the page does not forbid everything from elsewhere")
	}
}

// TestForeignNamesStayText: names come from a file that somebody else may have
// written.
func TestForeignNamesStayText(t *testing.T) {
	t.Parallel()
	const evil = `"><script>alert(1)</script><x y="`
	r := full()
	r.Title, r.Command, r.Warnings = evil, []string{evil}, []string{evil}
	for i := range r.Results {
		r.Results[i].Hop, r.Results[i].Variant, r.Results[i].Load.Name = evil, evil+strconv.Itoa(i), evil
	}
	for i := range r.Curves {
		r.Curves[i].Hop, r.Curves[i].Variant, r.Curves[i].Stop = evil, evil, evil
	}
	for i := range r.Causal {
		r.Causal[i].Hop = evil
	}
	if page := render(t, r); strings.Contains(page, "<script") || strings.Contains(page, "<x ") {
		t.Error("a name became markup")
	}
}

// geometry returns an error for a page that is no XML, or whose charts hold a
// coordinate that is no number or lies outside of its chart.
func geometry(page string) error {
	d := xml.NewDecoder(strings.NewReader(strings.Replace(page, "<!doctype html>", "", 1)))
	var wide, tall float64
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		element, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		for _, a := range element.Attr {
			switch a.Name.Local {
			case "viewBox":
				if _, err := fmt.Sscanf(a.Value, "0 0 %g %g", &wide, &tall); err != nil {
					return err
				}
			case "x", "x1", "x2", "cx":
				err = within(a.Value, wide)
			case "y", "y1", "y2", "cy":
				err = within(a.Value, tall)
			case "d":
				for i, v := range strings.Fields(strings.NewReplacer("M", " ", "L", " ").Replace(a.Value)) {
					if err == nil {
						err = within(v, []float64{wide, tall}[i%2])
					}
				}
			}
			if err != nil {
				return fmt.Errorf("<%s %s=%q>: %w", element.Name.Local, a.Name.Local, a.Value, err)
			}
		}
	}
}

func within(text string, limit float64) error {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || !(v >= 0 && v <= limit) {
		return fmt.Errorf("%q is not from 0 to %g", text, limit)
	}
	return nil
}

func TestChartsStayInTheirFrames(t *testing.T) {
	t.Parallel()
	one := report.Curve{Hop: "h", Variant: "v", Axis: report.ByConnections, Points: []report.Point{{X: 1, Rate: 5, P50: 3, P99: 3}}}
	tests := map[string]*report.Report{
		"everything": full(),
		"nothing":    {},
		"one point":  {Curves: []report.Curve{one}},
		"no points":  {Curves: []report.Curve{{Hop: "h", Variant: "v", Axis: report.ByOffered}}},
		"only zeros": {Curves: []report.Curve{{Hop: "h", Axis: report.ByBody, Points: []report.Point{{}, {}}}},
			Results: []report.Result{{Hop: "h", Summary: map[report.Metric]report.Summary{report.Rate: {}, report.User: {}}}},
			Causal:  []report.Causal{{}}},
		"huge and tiny": {Curves: []report.Curve{{Hop: "h", Axis: report.ByConnections, Points: []report.Point{{X: 1e-9, Rate: 1e-300, P50: 1e-9, P99: 1e-9}, {X: 1e15, Rate: 1e18, P50: 1e15, P99: 1e15}}}},
			Results: []report.Result{{Hop: "h", Samples: []report.Sample{{Latency: &report.Latency{Buckets: []report.Bucket{{Micros: 1e-6, Count: 1}, {Micros: 1e12, Count: 1 << 60}}}}},
				Summary: map[report.Metric]report.Summary{report.Rate: {Median: 1e18, High: 1e19}, report.P99: {Median: 1e-9}}}}},
		"more variants than colours": {Results: many(30)},
		"an axis of tomorrow":        {Curves: []report.Curve{{Hop: "h", Axis: "moons", Points: one.Points}}},
		"negative gains":             {Causal: []report.Causal{{Hop: "h", Speedup: 0.2, Rate: report.Interval{Value: -0.5, Low: -0.7, High: -0.2}}}},
	}
	for name, r := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := geometry(render(t, r)); err != nil {
				t.Error(err)
			}
		})
	}
}

func many(n int) []report.Result {
	var all []report.Result
	for i := range n {
		all = append(all, result("hop", fmt.Sprint("variant ", i), report.Requests, 1+float64(i)))
	}
	return all
}

// FuzzCharts: whatever the figures are, every coordinate is a number within its
// chart.
func FuzzCharts(f *testing.F) {
	f.Add(1.0, 100.0, 50.0, 2.0, 150.0, 70.0)
	f.Fuzz(func(t *testing.T, x1, rate1, p1, x2, rate2, p2 float64) {
		for _, v := range []float64{x1, rate1, p1, x2, rate2, p2} {
			if v < 0 || math.IsNaN(v) || math.IsInf(v, 0) {
				return // refused when a report is read
			}
		}
		r := &report.Report{Causal: []report.Causal{{Hop: "h", Rate: report.Interval{Value: x1 - x2, Low: x1 - x2 - p1, High: x1 - x2 + p1}}}}
		for _, axis := range []report.Axis{report.ByConnections, report.ByOffered, report.ByBody} {
			r.Curves = append(r.Curves, report.Curve{Hop: string(axis), Axis: axis, Points: []report.Point{
				{X: min(x1, x2), Rate: rate1, P50: p1, P99: p1}, {X: max(x1, x2), Rate: rate2, P50: p2, P99: p2},
			}})
		}
		var b bytes.Buffer
		if err := htmlreport.Write(&b, r); err != nil {
			t.Fatal(err)
		}
		if err := geometry(b.String()); err != nil {
			t.Error(err)
		}
	})
}
