package hops_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/corridor-enclave/corridor/bench/binaries"
	"github.com/corridor-enclave/corridor/bench/hops"
	"github.com/corridor-enclave/corridor/bench/ledger"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestIntegrationVariantsStart starts every variant of every hop as a measurement
// does: it answers, its processes can be charged, and it leaves nothing behind.
// Whoever renames a setting of ours learns of it here.
func TestIntegrationVariantsStart(t *testing.T) {
	bin := t.TempDir()
	for _, p := range []binaries.Program{binaries.Bench, binaries.EnclaveSim, binaries.Host} {
		if _, err := binaries.Build(t.Context(), bin, p); err != nil {
			t.Fatal(err)
		}
	}
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	for _, h := range hops.All() {
		for _, v := range h.Variants {
			if v.Name == "vsock" {
				continue // never outside of the test machine; bench vm's own test has it
			}
			t.Run(h.Name+" "+v.Name, func(t *testing.T) {
				running, err := v.Start(t.Context(), hops.Tools{Bin: bin})
				if missing := (*hops.Missing)(nil); errors.As(err, &missing) {
					tapstacktest.Require(t, err, missing.What, missing.Remedy)
				}
				if err != nil {
					t.Fatal(err)
				}
				if _, err := ledger.Take(t.Context(), running.Accounts); err != nil || len(running.Accounts) == 0 {
					t.Errorf("accounts %+v: %v", running.Accounts, err)
				}
				if why := running.Dead(); why != "" {
					t.Error(why)
				}
				if err := running.Stop(); err != nil {
					t.Error(err)
				}
				if left, err := filepath.Glob(filepath.Join(temp, "*")); err != nil || len(left) != 0 {
					t.Errorf("left behind: %v, %v", left, err)
				}
			})
		}
	}
	if _, err := os.Stat(temp); err != nil {
		t.Fatal(err)
	}
}
