// Package sometimes logs what somebody outside can cause at will: one line in a
// while, with the number of those that were left out. Exact numbers are for the
// counters of whoever logs.
package sometimes

import (
	"log/slog"
	"sync"
	"time"
)

// every is the shortest time between two lines.
const every = 10 * time.Second

// A Logger writes to Log now and then. It is safe for concurrent use, and must not
// be copied once it is used.
type Logger struct {
	Log *slog.Logger

	mu      sync.Mutex
	last    time.Time
	skipped int
}

// Warn logs, or counts that it did not.
func (l *Logger) Warn(msg string, args ...any) {
	if skipped, ok := l.turn(time.Now()); ok {
		l.Log.Warn(msg, append(args, "not_logged", skipped)...)
	}
}

// turn reports whether it is time for a line, and how many were left out.
func (l *Logger) turn(now time.Time) (skipped int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.last.IsZero() && now.Sub(l.last) < every {
		l.skipped++
		return 0, false
	}
	skipped, l.last, l.skipped = l.skipped, now, 0
	return skipped, true
}
