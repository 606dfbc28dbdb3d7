package ledger

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// A busy is how much of all cores was used and could have been, in µs since boot.
type busy struct{ used, total int64 }

// readBusy adds up the first line of /proc/stat: user nice system idle iowait irq
// softirq steal, then guests, which are in user already (proc(5)). What the
// hypervisor took away counts as used by others: it was.
func readBusy() (busy, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return busy{}, fmt.Errorf("ledger: %w", err)
	}
	return parseBusy(string(text))
}

func parseBusy(text string) (busy, error) {
	line, _, _ := strings.Cut(text, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return busy{}, fmt.Errorf("ledger: /proc/stat begins with %q", line)
	}
	n, err := integers(fields[1:9]...)
	if err != nil {
		return busy{}, fmt.Errorf("ledger: /proc/stat: %w", err)
	}
	var b busy
	for i, ticks := range n {
		b.total += ticks * microsPerTick
		if idle := i == 3 || i == 4; !idle {
			b.used += ticks * microsPerTick
		}
	}
	return b, nil
}

// ownMicros is the time of this process and of its children that were waited for,
// which is where load generators end up.
func ownMicros() (int64, error) {
	total := int64(0)
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var r syscall.Rusage
		if err := syscall.Getrusage(who, &r); err != nil {
			return 0, fmt.Errorf("ledger: %w", os.NewSyscallError("getrusage", err))
		}
		total += (r.Utime.Nano() + r.Stime.Nano()) / 1000
	}
	return total, nil
}
