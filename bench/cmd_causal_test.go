package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/corridor-enclave/corridor/bench/report"
)

func TestCausal(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--delays", "1us,0s"}, exitUsage, "not above zero"},
		{[]string{"--speedup", "1", "--stage", "-1s"}, exitUsage, "not a share"},
		{[]string{"--rounds", "0", "--stage", "10ms"}, exitFailed, "0 rounds"},
	} {
		code, _, stderr := bench(t, append([]string{"causal"}, tt.args...)...)
		if code != tt.code || !strings.Contains(stderr, tt.want) {
			t.Errorf("bench causal %q: exit %d, %q; want %d and %q", tt.args, code, stderr, tt.code, tt.want)
		}
	}
	file := filepath.Join(t.TempDir(), "report.json")
	code, stdout, stderr := bench(t, "causal", "--stage", "20ms", "--rounds", "2", "--delays", "50us", "--add", file)
	if code != exitOK || !strings.Contains(stdout, "if a hop were 20 % faster") {
		t.Fatalf("exit %d, %s%s", code, stdout, stderr)
	}
	r, err := report.Read(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Causal) != 3 || r.Causal[1].Hop != "proxy" || r.Causal[1].Speedup != 0.2 || r.Causal[1].Rate.Low > r.Causal[1].Rate.High {
		t.Errorf("%+v", r.Causal)
	}
}
