package crosscheck_test

import (
	"bytes"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/corridor-enclave/corridor/bench/binaries"
	"github.com/corridor-enclave/corridor/bench/crosscheck"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestGeneratorsTakeTurns runs both once. How near they are is for the command to
// judge, on a quiet machine.
func TestGeneratorsTakeTurns(t *testing.T) {
	wrk, err := exec.LookPath("wrk")
	tapstacktest.Require(t, err, "wrk", "apt-get install wrk")
	if runtime.NumCPU() < 2 {
		t.Skipf("needs two cores (remedy: run it on a larger machine)")
	}
	program, err := binaries.Build(t.Context(), t.TempDir(), binaries.Bench)
	if err != nil {
		t.Fatal(err)
	}
	before := cores(t)
	var out bytes.Buffer
	r, err := crosscheck.Run(t.Context(), crosscheck.Config{Bench: program, Wrk: wrk, Connections: 4, Rounds: 1, Duration: time.Second, Out: &out})
	if err != nil {
		t.Fatal(err)
	}
	if r.Ours.Median <= 0 || r.Wrk.Median <= 0 || r.Share.Median <= 0 || !strings.HasPrefix(out.String(), "round 1: bench ") {
		t.Errorf("%+v, %q", r, out.String())
	}
	if after := cores(t); after != before {
		t.Errorf("%d cores are left of %d", after, before)
	}
}

func TestFailureIsNotAResult(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skipf("needs two cores (remedy: run it on a larger machine)")
	}
	before := cores(t)
	_, err := crosscheck.Run(t.Context(), crosscheck.Config{Bench: os.DevNull, Wrk: os.DevNull, Rounds: 1, Connections: 1, Duration: time.Second, Out: &bytes.Buffer{}})
	if err == nil {
		t.Error("what cannot be started was measured")
	}
	if after := cores(t); after != before {
		t.Errorf("%d cores are left of %d", after, before)
	}
}

func cores(t *testing.T) int {
	t.Helper()
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		t.Fatal(err)
	}
	return set.Count()
}
