// Package cores keeps processes to some of the machine's cores, so that who measures
// does not take from what is measured. It does not decide who gets which.
package cores

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxCores is how many a unix.CPUSet has room for.
const maxCores = 1024

// Allowed returns the cores that this process may use.
func Allowed() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("cores: %w", os.NewSyscallError("sched_getaffinity", err))
	}
	var cores []int
	for i := range maxCores {
		if set.IsSet(i) {
			cores = append(cores, i)
		}
	}
	return cores, nil
}

func setOf(cores []int) *unix.CPUSet {
	var set unix.CPUSet
	for _, c := range cores {
		set.Set(c)
	}
	return &set
}

// PinThread moves the calling thread to the cores. It must be locked. What it starts
// inherits them.
func PinThread(cores []int) error {
	if err := unix.SchedSetaffinity(0, setOf(cores)); err != nil {
		return fmt.Errorf("cores: pin to %v: %w", cores, os.NewSyscallError("sched_setaffinity", err))
	}
	return nil
}

// Pin moves all threads of this process to the cores. A thread inherits the cores
// of the one that starts it, so the list is read again until no thread is new.
func Pin(cores []int) error {
	set := setOf(cores)
	pinned := map[string]bool{}
	for {
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("cores: %w", err)
		}
		before := len(pinned)
		for _, t := range threads {
			id, err := strconv.Atoi(t.Name())
			if err != nil || pinned[t.Name()] {
				continue
			}
			// A thread that has ended meanwhile needs no core.
			if err := unix.SchedSetaffinity(id, set); err != nil && err != unix.ESRCH {
				return fmt.Errorf("cores: %w", os.NewSyscallError("sched_setaffinity", err))
			}
			pinned[t.Name()] = true
		}
		if len(pinned) == before {
			return nil
		}
	}
}
