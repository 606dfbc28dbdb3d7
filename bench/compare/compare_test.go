package compare_test

import (
	"bytes"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/corridor-enclave/corridor/bench/compare"
	"github.com/corridor-enclave/corridor/bench/report"
)

// A machine makes reports of three proxies: ours, and two controls.
type machine struct {
	speed  float64 // of all of it
	ours   float64 // what ours costs more
	other  float64 // what one of the controls costs more
	rounds int
	seed   uint64
}

func (m machine) report() *report.Report {
	rng := rand.New(rand.NewPCG(m.seed, 0))
	r := &report.Report{Schema: report.Schema}
	for _, v := range []struct {
		name string
		ours bool
		cost float64
	}{{"corridor", true, 50 * m.ours}, {"tuned", false, 60}, {"nginx", false, 25 * m.other}} {
		result := report.Result{Hop: "proxy", Variant: v.name, Ours: v.ours, Load: report.Load{Name: "16 connections"}}
		allocs := 70.0
		if v.ours {
			allocs = 90 * m.ours
		}
		for i := range m.rounds {
			cost := v.cost / m.speed * math.Exp(0.02*rng.NormFloat64())
			result.Samples = append(result.Samples, report.Sample{Round: i, Sent: 1, OK: 1, Values: map[report.Metric]float64{
				report.CPU: cost, report.Rate: 1e6 / cost, report.Allocs: allocs,
			}})
		}
		r.Results = append(r.Results, result)
	}
	return r
}

func TestReports(t *testing.T) {
	t.Parallel()
	before := machine{speed: 1, ours: 1, other: 1, rounds: 8, seed: 1}
	tests := []struct {
		name   string
		after  machine
		worse  int
		better int
	}{
		{"the same", machine{1, 1, 1, 8, 2}, 0, 0},
		{"a faster machine", machine{1.4, 1, 1, 8, 2}, 0, 0},
		{"a slower machine", machine{0.6, 1, 1, 8, 2}, 0, 0},
		{"ours is slower", machine{1, 1.3, 1, 8, 2}, 3, 0},
		{"ours is slower on a faster machine", machine{1.3, 1.3, 1, 8, 2}, 3, 0},
		{"ours is faster on a slower machine", machine{0.7, 0.6, 1, 8, 2}, 0, 3},
		{"the controls disagree by as much", machine{1, 1.25, 1.5, 8, 2}, 1, 0}, // allocations need no control
		{"too few rounds", machine{1, 2, 1, 4, 2}, 0, 0},
	}
	for _, tt := range tests {
		v := compare.Reports(before.report(), tt.after.report())
		worse, better := 0, 0
		for _, c := range v.Changes {
			switch {
			case c.Worse():
				worse++
			case c.Real:
				better++
			}
		}
		if len(v.Changes) != 3 || worse != tt.worse || better != tt.better {
			t.Errorf("%s: of %d changes %d worse, %d better; want %d, %d: %+v", tt.name, len(v.Changes), worse, better, tt.worse, tt.better, v.Changes)
		}
	}
	if v := compare.Reports(before.report(), before.report(), report.Allocs); len(v.Changes) != 1 {
		t.Errorf("asked for one metric: %+v", v.Changes)
	}
}

func TestReportsNotes(t *testing.T) {
	t.Parallel()
	a, b := machine{1, 1, 1, 8, 1}.report(), machine{1, 1, 1, 3, 2}.report()
	a.Machine.CPU = "another"
	a.Results = a.Results[:2]
	b.Results[1].Load.Generator = "bombardier"
	a.Results[0].Variant = "gone"
	v := compare.Reports(a, b)
	all := strings.Join(v.Notes, "\n")
	for _, want := range []string{"machines differ", "nginx/16 connections is in the second", "gone/16 connections is in the first", "loads differ"} {
		if !strings.Contains(all, want) {
			t.Errorf("no note has %q:\n%s", want, all)
		}
	}
	if v := compare.Reports(b, b); !strings.Contains(strings.Join(v.Notes, "\n"), "fewer than 5") {
		t.Errorf("notes %v", v.Notes)
	}
}

func TestShow(t *testing.T) {
	t.Parallel()
	before := machine{1, 1, 1, 8, 1}.report()
	for _, tt := range []struct {
		after machine
		want  []string
		lines int
	}{
		{machine{1, 1, 1, 8, 1}, []string{"3 figures compared, 0 changed beyond noise"}, 1},
		{machine{1, 1.5, 1, 8, 1}, []string{"proxy/corridor, 16 connections: cpu", "+50.0%", "worse", "3 changed"}, 5},
	} {
		var out bytes.Buffer
		if err := compare.Reports(before, tt.after.report()).Show(&out); err != nil {
			t.Fatal(err)
		}
		for _, want := range tt.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("no %q in:\n%s", want, out.String())
			}
		}
		if n := strings.Count(out.String(), "\n"); n != tt.lines {
			t.Errorf("%d lines, want %d:\n%s", n, tt.lines, out.String())
		}
	}
}
