package main

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corridor-enclave/corridor/bench/report"
)

// TestNothingMeasured: where no variant can be had the table names each, the report is
// there, and the exit code does not say that all is well.
func TestNothingMeasured(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "report.json")
	code, stdout, stderr := bench(t, "proxy", "--bin", t.TempDir(), "--out", out, "--loads", "1000/s")
	if code != exitFailed || !strings.Contains(stderr, "nothing could be measured") || !strings.Contains(stdout, "skipped  proxy/enclave: needs ") {
		t.Errorf("exit code %d, %s%s", code, stdout, stderr)
	}
	if r, err := report.Read(out); err != nil || len(r.Skipped) == 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stdout, stderr bytes.Buffer
	if code := run(ctx, []string{"attest", "--hops", "verify"}, nil, &stdout, &stderr); code != exitFailed || !strings.Contains(stderr.String(), "stopped by a signal") {
		t.Errorf("exit code %d, %s", code, stderr.String())
	}
}
