package openloop

import (
	"time"

	"golang.org/x/sys/unix"
)

// PreciseSleep waits d by the kernel's high-resolution timers, and may return
// early. Go's own timers are up to a millisecond late in a process that is idle,
// because its poller waits in whole milliseconds (runtime/netpoll_epoll.go).
func PreciseSleep(d time.Duration) {
	wait := unix.NsecToTimespec(int64(d))
	// Interrupted means early; nothing else can go wrong with a positive time.
	_ = unix.ClockNanosleep(unix.CLOCK_MONOTONIC, 0, &wait, nil)
}
