package crosscheck_test

import (
	"strings"
	"testing"

	"github.com/corridor-enclave/corridor/bench/crosscheck"
	"github.com/corridor-enclave/corridor/bench/report"
)

func TestJudge(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name              string
		low, median, high float64
		want              string // empty means that they agree
	}{
		{"less", 0.80, 0.85, 0.90, "they differ"},
		{"more", 1.06, 1.10, 1.20, "they differ"},
		{"less, perhaps", 0.7, 0.9, 1.0, "too noisy to tell"},
		{"more, perhaps", 1.04, 1.10, 1.20, "too noisy to tell"},
		{"near", 0.97, 0.98, 1.01, ""},
		{"near, in a wide interval", 0.7, 1.04, 1.4, ""},
	} {
		err := crosscheck.Result{Share: report.Summary{N: 9, Low: tt.low, Median: tt.median, High: tt.high}, Quiet: 9, Tried: 9}.Judge(0.05)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// TestJudgeWantsQuiet: what others disturbed is no agreement.
func TestJudgeWantsQuiet(t *testing.T) {
	t.Parallel()
	r := crosscheck.Result{Share: report.Summary{N: 9, Low: 0.99, Median: 1, High: 1.01}, Quiet: 4, Tried: 18}
	if err := r.Judge(0.05); err == nil || !strings.Contains(err.Error(), "in 14 of 18 rounds") {
		t.Error(err)
	}
}
