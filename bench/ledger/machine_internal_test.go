package ledger

import (
	"testing"

	"github.com/corridor-enclave/corridor/bench/report"
)

func TestParseBusy(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "cpu", "cpu0 1 2 3 4 5 6 7 8\n", "cpu 1 2 3 4 5 6 7 x\n"} {
		if b, err := parseBusy(text); err == nil {
			t.Errorf("%q was read as %+v", text, b)
		}
	}
	got, err := parseBusy("cpu  1 2 3 40 50 6 7 8 9 10\ncpu0 1 1 1 1\n")
	if want := (busy{used: 27 * microsPerTick, total: 117 * microsPerTick}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

func TestSince(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name        string
		before, now use
		want        report.Process
	}{
		{
			"ticks are divided by the scheduler's count",
			use{threads: map[int]thread{1: {nanos: 5_000_000}}},
			use{user: 20_000, system: 10_000, threads: map[int]thread{1: {nanos: 50_000_000, voluntary: 3}}},
			report.Process{UserMicros: 30_000, SystemMicros: 15_000, Voluntary: 3},
		},
		{
			"less than a tick", use{}, use{threads: map[int]thread{1: {nanos: 7000, involuntary: 2}}},
			report.Process{UserMicros: 7, Involuntary: 2},
		},
		{
			"a thread ended, so that only ticks are left",
			use{threads: map[int]thread{1: {}, 2: {nanos: 9}}},
			use{user: 20_000, threads: map[int]thread{1: {nanos: 1000}}},
			report.Process{UserMicros: 20_000},
		},
	}
	for _, tt := range tests {
		if got := tt.now.since(tt.before); got != tt.want {
			t.Errorf("%s: got %+v, want %+v", tt.name, got, tt.want)
		}
	}
}
