package impair_test

import (
	"strings"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/bench/impair"
)

func TestParse(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in   string
		want impair.Profile
		err  string
	}{
		{in: "delay", err: `"delay": `},
		{in: "delay=-1s", err: "outside of 0 to 1m"},
		{in: "delay=2h", err: "outside of 0 to 1m"},
		{in: "lag=1ms", err: "none of delay, jitter"},
		{in: "delay=1ms,delay=2ms", err: "delay: more than once"},
		{in: "loss=2", err: "not a share"},
		{in: "loss=101%", err: "not a share"},
		{in: "loss=NaN", err: "not a share"},
		{in: "loss=-0.1,duplicate=x", err: `"duplicate=x": not a share`},
		{in: "rate=10", err: "not a rate"},
		{in: "rate=0Mbit", err: "not a rate"},
		{in: "rate=1Tbit", err: "not a rate"},
		{in: "queue=0KiB,rate=1Mbit", err: "not a size"},
		{in: "queue=2000MiB,rate=1Mbit", err: "not a size"},
		{in: "queue=64KiB", err: "without a rate nothing waits"},
		{in: "reorder=1%", err: "without a delay"},
		{in: "", want: impair.Profile{}},
		{in: "delay=20ms,jitter=1.5ms", want: impair.Profile{Delay: 20 * time.Millisecond, Jitter: 1500 * time.Microsecond}},
		{in: "rate=10Mbit,queue=9000B", want: impair.Profile{Rate: 1_250_000, Queue: 9000}},
		{in: "rate=0.8kbit,queue=2MiB", want: impair.Profile{Rate: 100, Queue: 2 << 20}},
		{in: "loss=0.1%,duplicate=0.25,reorder=1,delay=1s", want: impair.Profile{Loss: 0.001, Duplicate: 0.25, Reorder: 1, Delay: time.Second}},
	}
	for _, tt := range tests {
		got, err := impair.Parse(tt.in)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) || got != (impair.Profile{}) {
				t.Errorf("Parse(%q) = %+v, %v; want an error with %q", tt.in, got, err, tt.err)
			}
			continue
		}
		if err != nil || got != tt.want {
			t.Errorf("Parse(%q) = %+v, %v; want %+v", tt.in, got, err, tt.want)
		}
	}
}

// FuzzParse: what is accepted is within the limits.
func FuzzParse(f *testing.F) {
	f.Add("delay=20ms,jitter=2ms,loss=0.1%,duplicate=1%,reorder=1%,rate=10Mbit,queue=64KiB")
	f.Fuzz(func(t *testing.T, in string) {
		p, err := impair.Parse(in)
		if err != nil {
			return
		}
		for _, share := range []float64{p.Loss, p.Duplicate, p.Reorder} {
			if !(share >= 0 && share <= 1) {
				t.Errorf("Parse(%q) accepts the share %v", in, share)
			}
		}
		if p.Delay < 0 || p.Delay > time.Minute || p.Jitter < 0 || p.Jitter > time.Minute || p.Rate < 0 || p.Queue < 0 || p.Queue > 1<<30 {
			t.Errorf("Parse(%q) accepts %+v", in, p)
		}
	})
}
