//go:build !linux

package openloop

import "time"

// PreciseSleep waits d as precisely as Go's timers do.
func PreciseSleep(d time.Duration) { time.Sleep(d) }
