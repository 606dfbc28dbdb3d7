package measure_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/corridor-enclave/corridor/bench/binaries"
	"github.com/corridor-enclave/corridor/bench/hops"
	"github.com/corridor-enclave/corridor/bench/measure"
	"github.com/corridor-enclave/corridor/bench/report"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A book keeps what a run reports, and may be told to stop it at a step.
type book struct {
	notes []string
	steps []string
	stop  context.CancelFunc
}

func (b *book) Note(text string) { b.notes = append(b.notes, text) }

func (b *book) Step(n, total int, next string) {
	b.steps = append(b.steps, fmt.Sprintf("%d/%d", n, total))
	if n == 1 && b.stop != nil {
		b.stop()
	}
}

func find(t *testing.T, names ...string) []hops.Hop {
	t.Helper()
	found, err := hops.Find(names)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestRunRefuses(t *testing.T) {
	t.Parallel()
	for _, p := range []measure.Plan{{Seconds: 1}, {Rounds: 1}, {Rounds: 1, Seconds: 1, Warmup: -1}} {
		if _, err := measure.Run(t.Context(), p, &book{}); err == nil {
			t.Errorf("ran %+v", p)
		}
	}
}

// TestIntegrationRun measures two small servers for a moment, and one that is not
// there: two results with everything that a reader expects, one that is skipped by
// name, nothing left running.
func TestIntegrationRun(t *testing.T) {
	_, err := exec.LookPath("wrk")
	tapstacktest.Require(t, err, "wrk", "apt-get install wrk")
	bin := t.TempDir()
	if _, err := binaries.Build(t.Context(), bin, binaries.Bench); err != nil {
		t.Fatal(err)
	}
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	b := &book{}
	r, err := measure.Run(t.Context(), measure.Plan{
		Title: "test", Hops: find(t, "proxy"), Variants: []string{"relay", "corridor", "enclave"}, Loads: []string{"16 connections"},
		Rounds: 2, Seconds: 1, Warmup: 1, Seed: 3, Tools: hops.Tools{Bin: bin},
	}, b)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "report.json")
	if err := report.Write(path, r); err != nil {
		t.Fatal(err)
	}
	if r, err = report.Read(path); err != nil { // it checks what was written
		t.Fatal(err)
	}
	if len(r.Results) != 2 || len(r.Skipped) != 1 || r.Skipped[0].Variant != "enclave" || !strings.Contains(r.Skipped[0].Remedy, "make build") {
		t.Fatalf("%d results, skipped %+v", len(r.Results), r.Skipped)
	}
	for _, result := range r.Results {
		checkResult(t, result)
	}
	if !slices.ContainsFunc(r.Programs, func(p report.Program) bool {
		return p.Name == "corridor" && len(p.SHA256) == 64 && strings.Contains(p.Version, "go1")
	}) {
		t.Errorf("programs %+v", r.Programs)
	}
	if last := b.steps[len(b.steps)-1]; last != "4/4" {
		t.Errorf("the last step is %s of %v", last, b.steps)
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func checkResult(t *testing.T, result report.Result) {
	t.Helper()
	if len(result.Samples) != 2 {
		t.Fatalf("%s: %d samples", result.Key(), len(result.Samples))
	}
	wanted := []report.Metric{report.Rate, report.P50, report.P99, report.CPU, report.User, report.System, report.AppCPU, report.Switches, report.RSS}
	if result.Variant == "corridor" {
		wanted = append(wanted, report.Allocs)
	}
	for i, s := range result.Samples {
		if s.Failure != "" || s.Round != i || s.OK == 0 || len(s.Processes) != 2 {
			t.Errorf("%s: %+v", result.Key(), s)
		}
	}
	for _, m := range wanted {
		if s := result.Summary[m]; s.N != 2 || s.Median <= 0 {
			t.Errorf("%s: %s is %+v", result.Key(), m, s)
		}
	}
}

// TestWithin: rounds for which there is no time are left out, and that is said.
func TestWithin(t *testing.T) {
	t.Parallel()
	b := &book{}
	r, err := measure.Run(t.Context(), measure.Plan{Hops: find(t, "verify"), Rounds: 3, Seconds: 1, Seed: 1, Within: time.Millisecond}, b)
	if err != nil || len(r.Results) != 1 || len(r.Results[0].Samples) != 1 || !slices.ContainsFunc(r.Warnings, func(w string) bool { return strings.Contains(w, "1 of 3 rounds") }) {
		t.Errorf("%+v, %v", r, err)
	}
	if last := b.steps[len(b.steps)-1]; last != "1/1" {
		t.Errorf("the last step is %s of %v", last, b.steps)
	}
}

// TestIntegrationInterrupted ends a run in the middle: what was measured is kept,
// and what was started is stopped.
func TestIntegrationInterrupted(t *testing.T) {
	_, err := exec.LookPath("wrk")
	tapstacktest.Require(t, err, "wrk", "apt-get install wrk")
	bin := t.TempDir()
	if _, err := binaries.Build(t.Context(), bin, binaries.Bench); err != nil {
		t.Fatal(err)
	}
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	ctx, cancel := context.WithCancel(t.Context())
	r, err := measure.Run(ctx, measure.Plan{
		Hops: find(t, "generator"), Variants: []string{"null"}, Rounds: 2, Seconds: 1, Tools: hops.Tools{Bin: bin},
	}, &book{stop: cancel})
	if err == nil || r == nil || len(r.Results) == 0 || len(r.Results[0].Samples)+len(r.Results[1].Samples) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
