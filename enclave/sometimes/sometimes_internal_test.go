package sometimes

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestTurns(t *testing.T) {
	t.Parallel()
	var l Logger
	start := time.Unix(1000, 0)
	for _, tt := range []struct {
		after   time.Duration
		skipped int
		ok      bool
	}{{0, 0, true}, {time.Second, 0, false}, {2 * time.Second, 0, false}, {every, 2, true}, {every + 1, 0, false}, {3 * every, 1, true}} {
		if skipped, ok := l.turn(start.Add(tt.after)); skipped != tt.skipped || ok != tt.ok {
			t.Errorf("after %s: %d, %t; want %d, %t", tt.after, skipped, ok, tt.skipped, tt.ok)
		}
	}
}

func TestWarn(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	l := Logger{Log: slog.New(slog.NewJSONHandler(&out, nil))}
	for range 3 {
		l.Warn("refused", "to", "x")
	}
	if got := out.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `"to":"x","not_logged":0`) {
		t.Errorf("%s", got)
	}
}
