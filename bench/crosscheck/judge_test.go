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
		err := crosscheck.Result{Share: report.Summary{Low: tt.low, Median: tt.median, High: tt.high}}.Judge(0.05)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}
