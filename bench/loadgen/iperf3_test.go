package loadgen_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/bench/loadgen"
)

func TestParseIPerf3(t *testing.T) {
	t.Parallel()
	good := recorded(t, "iperf3-clean.json")
	tests := []struct {
		name, out, want string
	}{
		{"nothing", "", "end of JSON"},
		{"refused", recorded(t, "iperf3-refused.json"), "Connection refused"},
		{"no sum", strings.ReplaceAll(good, "sum_received", "sum"), "no sums"},
		{"nothing arrived", strings.ReplaceAll(good, `"bytes":	1617428374`, `"bytes":	0`), "0 bytes"},
	}
	for _, tt := range tests {
		if got, err := loadgen.ParseIPerf3([]byte(tt.out)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %+v, error %v, want one with %q", tt.name, got, err, tt.want)
		}
	}
	got, err := loadgen.ParseIPerf3([]byte(good))
	if want := (loadgen.Transfer{Bytes: 1617428374, Duration: 1000316999, Retransmits: got.Retransmits}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

func TestFlowIsChecked(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "no-such-program")
	tests := []struct {
		flow loadgen.Flow
		want string
	}{
		{loadgen.Flow{Address: "127.0.0.1", Streams: 1, Duration: time.Second}, "missing port"},
		{loadgen.Flow{Address: "127.0.0.1:1", Duration: time.Second}, "0 streams"},
		{loadgen.Flow{Address: "127.0.0.1:1", Streams: 1, Duration: time.Second / 2}, "500ms"},
		{loadgen.Flow{Address: "127.0.0.1:1", Streams: 1, Duration: time.Second}, "no-such-program"},
	}
	for _, tt := range tests {
		if _, err := loadgen.IPerf3(t.Context(), missing, tt.flow); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: error %v, want one with %q", tt.flow, err, tt.want)
		}
	}
}

// Whatever iperf3 prints, what is accepted is a transfer of something.
func FuzzParseIPerf3(f *testing.F) {
	f.Add([]byte(recorded(f, "iperf3-clean.json")))
	f.Add([]byte(recorded(f, "iperf3-refused.json")))
	f.Fuzz(func(t *testing.T, out []byte) {
		if got, err := loadgen.ParseIPerf3(out); err == nil && (got.Bytes <= 0 || got.Duration <= 0 || got.Retransmits < 0) {
			t.Fatalf("accepted %+v from %q", got, out)
		}
	})
}
