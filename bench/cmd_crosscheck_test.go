package main

import (
	"strings"
	"testing"
)

func TestCrosscheckRefusesWhatItCannotDo(t *testing.T) {
	t.Parallel()
	code, _, stderr := bench(t, "crosscheck", "--connections", "0", "--rounds", "-1", "--duration", "1500ms", "--tolerance", "2")
	if code != exitUsage {
		t.Errorf("exit %d, want %d", code, exitUsage)
	}
	if want := `--tolerance "2": not a share`; !strings.Contains(stderr, want) {
		t.Errorf("%q lacks %q", stderr, want)
	}
	code, _, stderr = bench(t, "crosscheck", "--connections", "0", "--rounds", "-1", "--duration", "1500ms")
	for _, want := range []string{`--connections "0": is not at least 1`, `--rounds "-1": is not at least 1`, `--duration "1500ms": is not whole seconds`} {
		if code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("exit %d, %q; want %d and %q", code, stderr, exitUsage, want)
		}
	}
}
