// Package pacing spaces the attempts of those who try again. How often and what
// for is theirs to decide.
package pacing

import (
	"math/rand/v2"
	"time"
)

// Accept is how long accepting pauses when there is no room for another connection
// (file descriptors, memory): the room comes back when others end.
const Accept = 50 * time.Millisecond

// Pause waits for d. It returns false, at once, when done is closed.
func Pause(done <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-done:
		return false
	}
}

// About returns a time from half of d up to d, so that many who wait for the same
// thing do not come back together.
func About(d time.Duration) time.Duration { return d/2 + rand.N(d/2) }
