package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// callsID names the kernel's tracepoint at the begin of every system call.
const callsID = "/sys/kernel/tracing/events/raw_syscalls/sys_enter/id"

// Calls counts the system calls of accounts, all of them, from CountCalls to Stop.
// Each call costs its process some 100 ns more meanwhile, which is charged to it.
type Calls struct{ counters [][]int } // of each account, one for each thread

// CountCalls begins to count, with the threads that begin meanwhile. Those that begin
// while it looks for threads may be missed: processes should be at rest.
func CountCalls(accounts []Account) (*Calls, error) {
	id, err := tracepoint()
	if err != nil {
		return nil, err
	}
	children, err := childrenByParent()
	if err != nil {
		return nil, err
	}
	c := &Calls{counters: make([][]int, len(accounts))}
	for i, a := range accounts {
		if c.counters[i], err = countTree(id, a.PID, children); err != nil {
			_, ended := c.Stop()
			return nil, errors.Join(fmt.Errorf("ledger: count the calls of %s: %w", a.Name, err), ended)
		}
	}
	return c, nil
}

// CanCountCalls returns why this process may not, or nil.
func CanCountCalls() error {
	id, err := tracepoint()
	if err != nil {
		return err
	}
	fd, err := openCounter(id, os.Getpid())
	if err != nil {
		return fmt.Errorf("ledger: count system calls: %w (remedy: run as root)", err)
	}
	return unix.Close(fd)
}

func tracepoint() (uint64, error) {
	text, err := os.ReadFile(callsID)
	if err != nil {
		return 0, fmt.Errorf("ledger: count system calls: %w (remedy: run as root, with tracefs at /sys/kernel/tracing)", err)
	}
	return strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
}

// countTree counts for each thread of a process and its descendants. What was opened
// before it fails is returned too.
func countTree(id uint64, pid int, children map[int][]int) (counters []int, err error) {
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return nil, err
	}
	for _, t := range threads {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			return counters, err
		}
		fd, err := openCounter(id, tid)
		if err == unix.ESRCH {
			continue // it ended meanwhile
		}
		if err != nil {
			return counters, err
		}
		counters = append(counters, fd)
	}
	for _, child := range children[pid] {
		more, err := countTree(id, child, children)
		counters = append(counters, more...)
		if err != nil && !gone(err) {
			return counters, err
		}
	}
	return counters, nil
}

// openCounter counts for one thread, on whatever core, and for those that it starts
// from now on (perf_event_open(2)).
func openCounter(id uint64, tid int) (int, error) {
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_TRACEPOINT, Size: unix.PERF_ATTR_SIZE_VER5, Config: id, Bits: unix.PerfBitInherit}
	fd, err := unix.PerfEventOpen(&attr, tid, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil && err != unix.ESRCH {
		return -1, os.NewSyscallError("perf_event_open", err)
	}
	return fd, err
}

// Stop ends counting and returns the count of each account.
func (c *Calls) Stop() ([]int64, error) {
	var errs []error
	totals := make([]int64, len(c.counters))
	for i, counters := range c.counters {
		for _, fd := range counters {
			var count [8]byte
			n, err := unix.Read(fd, count[:])
			if err == nil && n != len(count) {
				err = fmt.Errorf("%d bytes of a count", n)
			}
			errs = append(errs, err, unix.Close(fd))
			totals[i] += int64(binary.NativeEndian.Uint64(count[:]))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("ledger: count system calls: %w", err)
	}
	return totals, nil
}
