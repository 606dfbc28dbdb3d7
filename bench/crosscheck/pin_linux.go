package crosscheck

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxCores is how many a unix.CPUSet has room for.
const maxCores = 1024

// allowed returns the cores that this process may use.
func allowed() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("crosscheck: %w", os.NewSyscallError("sched_getaffinity", err))
	}
	var cores []int
	for i := range maxCores {
		if set.IsSet(i) {
			cores = append(cores, i)
		}
	}
	return cores, nil
}

// pin moves all threads of this process to the cores. A thread inherits the cores
// of the one that starts it, so the list is read again until no thread is new.
func pin(cores []int) error {
	var set unix.CPUSet
	for _, c := range cores {
		set.Set(c)
	}
	pinned := map[string]bool{}
	for {
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("crosscheck: %w", err)
		}
		before := len(pinned)
		for _, t := range threads {
			id, err := strconv.Atoi(t.Name())
			if err != nil || pinned[t.Name()] {
				continue
			}
			// A thread that has ended meanwhile needs no core.
			if err := unix.SchedSetaffinity(id, &set); err != nil && err != unix.ESRCH {
				return fmt.Errorf("crosscheck: %w", os.NewSyscallError("sched_setaffinity", err))
			}
			pinned[t.Name()] = true
		}
		if len(pinned) == before {
			return nil
		}
	}
}
