package inbound

import (
	"log/slog"
	"sync"
	"time"
)

// logEvery is the shortest time between two lines that a peer can cause at will.
const logEvery = 10 * time.Second

// sometimes logs now and then, and how often it did not.
type sometimes struct {
	log *slog.Logger

	mu      sync.Mutex
	last    time.Time
	skipped int
}

func (s *sometimes) warn(msg string, args ...any) {
	if skipped, ok := s.turn(time.Now()); ok {
		s.log.Warn(msg, append(args, "part", "streams", "not_logged", skipped)...)
	}
}

// turn reports whether it is time for a line, and how many were left out.
func (s *sometimes) turn(now time.Time) (skipped int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.last.IsZero() && now.Sub(s.last) < logEvery {
		s.skipped++
		return 0, false
	}
	skipped, s.last, s.skipped = s.skipped, now, 0
	return skipped, true
}
