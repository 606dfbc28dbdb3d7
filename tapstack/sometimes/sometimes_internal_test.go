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
	type turn struct {
		after   time.Duration
		skipped int
		ok      bool
	}
	start := time.Unix(1000, 0)
	for name, turns := range map[string][]turn{
		"late ones": {{0, 0, true}, {time.Second, 0, false}, {2 * time.Second, 0, false}, {every, 2, true}, {every + 1, 0, false}, {3 * every, 1, true}},
		"borders":   {{0, 0, true}, {1, 0, false}, {every - 1, 0, false}, {every, 2, true}, {2 * every, 0, true}},
	} {
		var l Logger
		for _, tt := range turns {
			if skipped, ok := l.turn(start.Add(tt.after)); skipped != tt.skipped || ok != tt.ok {
				t.Errorf("%s: after %s: %d, %t; want %d, %t", name, tt.after, skipped, ok, tt.skipped, tt.ok)
			}
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
