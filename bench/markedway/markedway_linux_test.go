package markedway_test

import (
	"context"
	"crypto/tls"
	"errors"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/corridor-enclave/corridor/bench/binaries"
	"github.com/corridor-enclave/corridor/bench/hops"
	"github.com/corridor-enclave/corridor/bench/markedway"
	"github.com/corridor-enclave/corridor/bench/openloop"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestMissing: what could be started is stopped.
func TestMissing(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	_, err := markedway.Start(t.Context(), hops.Tools{Bin: t.TempDir()})
	if missing := (*hops.Missing)(nil); !errors.As(err, &missing) {
		t.Errorf("error %v, want one that says what is missing", err)
	}
}

// TestIntegrationMarks: each process is charged, and each mark is on the way: a delay
// there is at least what a request takes more.
func TestIntegrationMarks(t *testing.T) {
	bin := t.TempDir()
	for _, p := range []binaries.Program{binaries.Bench, binaries.EnclaveSim, binaries.Host} {
		if _, err := binaries.Build(t.Context(), bin, p); err != nil {
			t.Fatal(err)
		}
	}
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	w, err := markedway.Start(t.Context(), hops.Tools{Bin: bin})
	if err != nil {
		t.Fatal(err)
	}
	fastest := func(ctx context.Context) (time.Duration, int64, error) {
		r, err := openloop.Run(ctx, openloop.Target{URL: w.URL, Timeout: time.Minute, TLS: &tls.Config{InsecureSkipVerify: true}},
			openloop.Load{Connections: 1, Duration: 300 * time.Millisecond})
		if err != nil {
			return 0, 0, err
		}
		return time.Duration(r.Latency.Min()), r.OK, r.Clean()
	}
	parts, err := w.Hops(t.Context(), func(ctx context.Context) (int64, error) {
		_, n, err := fastest(ctx)
		return n, err
	})
	if err != nil || len(parts) != 3 {
		t.Fatalf("%+v, %v", parts, err)
	}
	const delay = 50 * time.Millisecond
	for _, h := range parts {
		if h.Cost <= 0 {
			t.Errorf("%s costs %v", h.Name, h.Cost)
		}
		h.Slow(delay)
		// A histogram rounds down by less than a hundredth.
		if got, _, err := fastest(t.Context()); err != nil || got < delay-delay/100 {
			t.Errorf("%s slowed by %v: %v, %v", h.Name, delay, got, err)
		}
		h.Slow(0)
	}
	if err := w.Stop(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
