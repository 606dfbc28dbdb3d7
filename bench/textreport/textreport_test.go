package textreport_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/bench/report"
	"github.com/corridor-enclave/corridor/bench/textreport"
)

func example() *report.Report {
	load := report.Load{Name: "16 connections", Generator: "wrk", Kind: report.Requests, Connections: 16}
	result := func(variant string, scale float64) report.Result {
		return report.Result{
			Hop: "proxy", Variant: variant, Load: load,
			Samples: []report.Sample{
				{OK: 100, Values: map[report.Metric]float64{report.Rate: 1000 * scale, report.CPU: 50 / scale}},
				{Round: 1, OK: 101, Values: map[report.Metric]float64{report.Rate: 1100 * scale, report.CPU: 50 / scale}},
				{Round: 2, Failure: "reset by peer"},
			},
			Summary: map[report.Metric]report.Summary{
				report.Rate: {N: 2, Median: 1050 * scale, Low: 1000 * scale, High: 1100 * scale},
				report.CPU:  {N: 2, Median: 50 / scale, Low: 50 / scale, High: 50 / scale, Noisy: scale == 1},
			},
		}
	}
	broken := report.Result{Hop: "proxy", Variant: "broken", Load: load, Samples: []report.Sample{{Failure: "500"}}}
	return &report.Report{
		Title: "bench proxy", Seconds: 60,
		Source:   report.Source{Commit: "0123456789abcdef", Changed: true, Go: "go1.26"},
		Machine:  report.Machine{OS: "linux", Arch: "amd64", CPU: "Some CPU", Cores: 2, Kernel: "6.1"},
		Settings: report.Settings{Rounds: 3, Seconds: 2, Seed: 7},
		Results:  []report.Result{result("tuned", 1), result("corridor", 2), broken},
		Skipped:  []report.Skipped{{Hop: "proxy", Variant: "nginx", Reason: "needs nginx", Remedy: "make deps"}, {Hop: "link", Reason: "no loads"}},
		Warnings: []string{"the machine was not ours alone"},
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	groups := []textreport.Group{{Hop: "proxy", About: "a proxy", Baseline: "tuned"}, {Hop: "link", Baseline: "stock"}}
	if err := textreport.Table(&out, example(), groups); err != nil {
		t.Fatal(err)
	}
	const want = `bench proxy, commit 0123456789ab+changes, go1.26, 2 x Some CPU, Linux 6.1: 3 rounds of 2 s, seed 7, 60 s in all

proxy, 16 connections by wrk: a proxy
  variant   requests/s  CPU µs/request
  tuned     1050 ±5%    50.0 ±0%!
  corridor  2100 ±5%    25.0 ±0%
  broken    failed      failed
  by tuned  rate               cpu
  corridor  x2.00 (2.00-2.00)  x0.50 (0.50-0.50)
  broken    -                  -
skipped  proxy/nginx: needs nginx (remedy: make deps)
skipped  link: no loads
note     the machine was not ours alone
`
	if got := trimLines(out.String()); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// trimLines removes blanks at the ends of lines, which nobody sees.
func trimLines(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	return b.String()
}

func TestBenchstat(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := textreport.Benchstat(&out, example()); err != nil {
		t.Fatal(err)
	}
	const want = `goos: linux
goarch: amd64
pkg: corridor/bench
cpu: Some CPU
BenchmarkProxy/variant=tuned/load=16-connections 100 1000 op/s 50 cpu-us/op
BenchmarkProxy/variant=tuned/load=16-connections 101 1100 op/s 50 cpu-us/op
BenchmarkProxy/variant=corridor/load=16-connections 100 2000 op/s 25 cpu-us/op
BenchmarkProxy/variant=corridor/load=16-connections 101 2200 op/s 25 cpu-us/op
`
	if out.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", out.String(), want)
	}
}

// full takes nothing.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestErrorsAreTold(t *testing.T) {
	t.Parallel()
	if err := textreport.Table(full{}, example(), []textreport.Group{{Hop: "proxy"}}); err == nil {
		t.Error("a table was lost in silence")
	}
	if err := textreport.Benchstat(full{}, example()); err == nil {
		t.Error("lines were lost in silence")
	}
}

func TestProgress(t *testing.T) {
	t.Parallel()
	tests := []struct {
		live bool
		want string
	}{
		{false, "bench: 0 of 4, ? left: first\nbench: 1 of 4, 30s left: second\nbench: skipped nginx\n    no nginx\n"},
		{true, "[                        ] 0/4  ? left  first" +
			"\r\x1b[K[======                  ] 1/4  30s left  second" +
			"\r\x1b[Kbench: skipped nginx\n    no nginx\n[======                  ] 1/4  30s left  second" +
			"\r\x1b[K"},
	}
	for _, tt := range tests {
		var out bytes.Buffer
		clock := time.Unix(0, 0)
		p := textreport.NewProgress(&out, tt.live, func() time.Time { return clock })
		p.Step(0, 4, "first")
		clock = clock.Add(10 * time.Second)
		p.Step(1, 4, "second")
		p.Note("skipped nginx\nno nginx\n")
		p.Step(4, 4, "")
		if out.String() != tt.want {
			t.Errorf("live %v: got %q, want %q", tt.live, out.String(), tt.want)
		}
	}
	if textreport.Terminal(&bytes.Buffer{}) {
		t.Error("a buffer passes for a terminal")
	}
}
