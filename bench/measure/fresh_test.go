package measure_test

import (
	"errors"
	"os"
	"testing"

	"github.com/corridor-enclave/corridor/bench/binaries"
	"github.com/corridor-enclave/corridor/bench/hops"
	"github.com/corridor-enclave/corridor/bench/measure"
	"github.com/corridor-enclave/corridor/bench/report"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

// TestFreshSkips: a hop of which each sample is of processes of its own, none of which
// is there: every variant is skipped once, by name, and nothing is measured.
func TestFreshSkips(t *testing.T) {
	t.Parallel()
	b := &book{}
	r, err := measure.Run(t.Context(), measure.Plan{
		Hops: find(t, "idle"), Rounds: 3, Seconds: 1, Seed: 1, Tools: hops.Tools{Bin: t.TempDir()},
	}, b)
	if err != nil || len(r.Results) != 0 || len(r.Skipped) != len(find(t, "idle")[0].Variants) {
		t.Errorf("%d results, skipped %+v, %v", len(r.Results), r.Skipped, err)
	}
	if last := b.steps[len(b.steps)-1]; last != "0/0" {
		t.Errorf("the last step is %s", last)
	}
}

// TestIntegrationFresh holds a few connections through the stream road, twice.
func TestIntegrationFresh(t *testing.T) {
	if os.Geteuid() != 0 {
		tapstacktest.Require(t, errors.New("not root"), "network namespaces", "run as root")
	}
	bin := t.TempDir()
	for _, p := range []binaries.Program{binaries.Bench, binaries.EnclaveSim, binaries.Host} {
		if _, err := binaries.Build(t.Context(), bin, p); err != nil {
			t.Fatal(err)
		}
	}
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	found := find(t, "idle")
	found[0].Loads[0].Connections = 300
	b := &book{}
	r, err := measure.Run(t.Context(), measure.Plan{
		Hops: found, Variants: []string{"corridor"}, Rounds: 2, Seconds: 1, Seed: 1, Tools: hops.Tools{Bin: bin},
	}, b)
	if err != nil || len(r.Skipped) != 0 || len(r.Results) != 1 {
		t.Fatalf("%d results, skipped %+v, %v", len(r.Results), r.Skipped, err)
	}
	for _, m := range []report.Metric{report.Outside, report.Inside} {
		if s := r.Results[0].Summary[m]; s.N != 2 || s.Median < 1<<10 {
			t.Errorf("%s is %+v", m, s)
		}
	}
	if last := b.steps[len(b.steps)-1]; last != "2/2" {
		t.Errorf("the last step is %s", last)
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
