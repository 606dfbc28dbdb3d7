package exposition

import (
	"bytes"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// askSystem fills in what only the kernel knows. What it does not say, in an
// enclave without /proc for example, stays 0.
func (p *Process) askSystem() {
	var usage unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &usage) == nil {
		p.CPU = time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	p.ResidentBytes = residentBytes()
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		p.OpenDescriptors = uint64(max(len(fds)-1, 0)) // without the one that read the folder
	}
}

// residentBytes is the second number of /proc/self/statm (proc(5)), in pages.
func residentBytes() uint64 {
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	words := bytes.Fields(statm)
	if len(words) < 2 {
		return 0
	}
	pages, err := strconv.ParseUint(string(words[1]), 10, 64)
	if err != nil {
		return 0
	}
	return pages * uint64(os.Getpagesize())
}
