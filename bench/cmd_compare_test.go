package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corridor-enclave/corridor/bench/hops"
	"github.com/corridor-enclave/corridor/bench/report"
)

// gateReport is what the gate would have measured, at this cost of ours.
func gateReport(t *testing.T, cost float64) string {
	t.Helper()
	r := &report.Report{Schema: report.Schema}
	for _, variant := range []string{"direct", "tuned", "corridor"} {
		result := report.Result{Hop: "proxy", Variant: variant, Ours: variant == "corridor", Load: report.Load{Name: gateLoad}}
		for i := range gateRounds {
			cpu := 50 + float64(i%5)
			if result.Ours {
				cpu *= cost
			}
			result.Samples = append(result.Samples, report.Sample{
				Round: i, Sent: 1, OK: 1, Values: map[report.Metric]float64{report.CPU: cpu, report.Allocs: 90 * cost},
				Latency: &report.Latency{}, Processes: []report.Process{{Name: variant}},
			})
		}
		r.Results = append(r.Results, result)
	}
	path := filepath.Join(t.TempDir(), "report.json")
	if err := report.Write(path, r); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCompareAndGate(t *testing.T) {
	t.Parallel()
	before, same, worse, better := gateReport(t, 1), gateReport(t, 1), gateReport(t, 1.4), gateReport(t, 0.7)
	broken := filepath.Join(t.TempDir(), "broken.json")
	if err := os.WriteFile(broken, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(t.TempDir(), "missing.json")
	tests := []struct {
		name string
		args []string
		code int
		want string
	}{
		{"compare one", []string{"compare", before}, exitUsage, "two reports"},
		{"compare a flag", []string{"compare", "--fast", before}, exitUsage, "two reports"},
		{"compare nothing", []string{"compare", before, broken}, exitFailed, "schema 0"},
		{"compare the same", []string{"compare", before, same}, exitOK, "0 changed"},
		{"compare worse", []string{"compare", before, worse}, exitOK, "+40.0%"},
		{"help", []string{"compare", "--help"}, exitOK, "BEFORE.json"},
		{"no baseline", []string{"gate", "--baseline", missing, "--report", same}, exitFailed, "--update"},
		{"a broken baseline", []string{"gate", "--baseline", broken, "--report", same}, exitFailed, "schema 0"},
		{"the same", []string{"gate", "--baseline", before, "--report", same}, exitOK, "0 changed"},
		{"better", []string{"gate", "--baseline", before, "--report", better}, exitOK, "better"},
		{"worse", []string{"gate", "--baseline", before, "--report", worse}, exitFailed, "allocs is worse: 90 before, 126 now"},
		{"an unknown flag", []string{"gate", "--speed"}, exitUsage, "unknown"},
	}
	for _, tt := range tests {
		var out, errs bytes.Buffer
		code := run(t.Context(), tt.args, nil, &out, &errs)
		if all := out.String() + errs.String(); code != tt.code || !strings.Contains(all, tt.want) {
			t.Errorf("%s: code %d, want %d and %q:\n%s", tt.name, code, tt.code, tt.want, all)
		}
	}
}

// TestBaselineIsKept updates a baseline, which keeps what the gate needs of a report
// and no more.
func TestBaselineIsKept(t *testing.T) {
	t.Parallel()
	baseline := filepath.Join(t.TempDir(), "baseline.json")
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"gate", "--update", "--baseline", baseline, "--report", gateReport(t, 1)}, nil, &out, &errs); code != exitOK {
		t.Fatalf("code %d: %s", code, errs.String())
	}
	r, err := report.Read(baseline)
	if err != nil {
		t.Fatal(err)
	}
	if s := r.Results[0].Samples[0]; len(r.Results) != 3 || len(s.Values) != 2 || s.Processes != nil || s.Latency != nil {
		t.Errorf("kept %+v", r.Results[0])
	}
	if code := run(t.Context(), []string{"gate", "--baseline", baseline, "--report", gateReport(t, 1)}, nil, &out, &errs); code != exitOK {
		t.Fatalf("code %d: %s", code, errs.String())
	}
}

// TestRunSaysWhatItCannot: wrong wishes are refused before anything is measured.
func TestRunSaysWhatItCannot(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"run", "--hops", "everything"}, "there are"},
		{[]string{"run", "--hops", "proxy,,link"}, "empty"},
		{[]string{"proxy", "--rounds", "many"}, "not a number"},
		{[]string{"proxy", "--variants", "corridor,ngingx"}, "no variant \"ngingx\""},
		{[]string{"proxy", "--loads", "9 connections"}, "no load \"9 connections\""},
		{[]string{"serve", "--kind", "fast"}, "not one of"},
	} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), tt.args, nil, &out, &errs); code != exitUsage || !strings.Contains(errs.String(), tt.want) {
			t.Errorf("%q: code %d: %s", tt.args, code, errs.String())
		}
	}
}

// TestGateHops: each has what is ours and two controls beside it, and the load.
func TestGateHops(t *testing.T) {
	t.Parallel()
	chosen, err := gateHops()
	if err != nil || len(chosen) != 3 {
		t.Fatalf("%d hops, %v", len(chosen), err)
	}
	for _, h := range chosen {
		ours := 0
		for _, v := range h.Variants {
			if v.Ours {
				ours++
			}
		}
		if ours != 1 || len(h.Variants) != 3 {
			t.Errorf("%s: %d variants, %d of them ours", h.Name, len(h.Variants), ours)
		}
		if err := known([]hops.Hop{h}, nil, []string{gateLoad}); err != nil {
			t.Error(err)
		}
	}
}

func TestForgetRare(t *testing.T) {
	t.Parallel()
	r := &report.Report{}
	for _, hop := range []string{"proxy", "stream"} {
		r.Results = append(r.Results, report.Result{
			Hop: hop, Summary: map[report.Metric]report.Summary{report.Allocs: {}, report.CPU: {}},
			Samples: []report.Sample{{Values: map[report.Metric]float64{report.Allocs: 1, report.AllocBytes: 9, report.CPU: 2}}},
		})
	}
	forgetRare(r)
	for i, want := range []int{3, 1} {
		if got := r.Results[i]; len(got.Samples[0].Values) != want || len(got.Summary) != min(want, 2) {
			t.Errorf("%s: %+v", got.Hop, got)
		}
	}
}
