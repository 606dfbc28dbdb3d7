package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/corridor-enclave/corridor/bench/report"
)

// microsPerTick: /proc counts in USER_HZ, which is 100 on every architecture that
// Go runs on (proc(5)).
const microsPerTick = 10_000

// A use is what a tree of processes has used since it began.
type use struct {
	user, system int64 // µs, in steps of a tick, threads that ended included
	threads      map[int]thread
	rss          int64
	anonymous    int64 // of rss, what no file backs
	pss          *int64
	io           *[4]int64 // read calls, write calls, bytes read, bytes written
}

// A thread's counts are exact where the process's are rounded to ticks, but end
// with it.
type thread struct {
	nanos                  int64 // on a core
	voluntary, involuntary int64 // context switches
}

// since returns the difference of two uses of one tree. Threads that began in
// between count in full; of those that ended, only the time is known.
func (u use) since(before use) report.Process {
	p := report.Process{RSSBytes: u.rss, PSSBytes: u.pss, GrownBytes: u.anonymous - before.anonymous}
	exact := int64(0)
	for id, now := range u.threads {
		then := before.threads[id]
		exact += now.nanos - then.nanos
		p.Voluntary += now.voluntary - then.voluntary
		p.Involuntary += now.involuntary - then.involuntary
	}
	ended := false
	for id := range before.threads {
		if _, ok := u.threads[id]; !ok {
			ended = true
		}
	}
	user, system := float64(u.user-before.user), float64(u.system-before.system)
	if ticks := user + system; !ended && ticks > 0 {
		// Ticks say how the time was divided, the scheduler how much it was.
		scale := float64(exact) / 1e3 / ticks
		user, system = user*scale, system*scale
	} else if !ended {
		user = float64(exact) / 1e3 // less than a tick: not divided
	}
	p.UserMicros, p.SystemMicros = max(0, user), max(0, system)
	if u.io != nil && before.io != nil {
		var d [4]int64
		for i := range d {
			d[i] = u.io[i] - before.io[i]
		}
		p.Reads, p.Writes, p.ReadBytes, p.WrittenBytes = &d[0], &d[1], &d[2], &d[3]
	}
	return p
}

// childrenByParent lists the children of every process.
func childrenByParent() (map[int][]int, error) {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	children := map[int][]int{}
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		fields, err := statFields(pid)
		if err != nil {
			continue // it ended meanwhile, or is somebody else's
		}
		parent, err := strconv.Atoi(fields[statParent])
		if err != nil {
			return nil, fmt.Errorf("ledger: /proc/%d/stat: parent %q", pid, fields[statParent])
		}
		children[parent] = append(children[parent], pid)
	}
	return children, nil
}

// Places in /proc/PID/stat, counted from the first field behind the name (proc(5)
// counts from 1, with the state as 3).
const (
	statParent = 4 - 3
	statUser   = 14 - 3
	statSystem = 15 - 3
	statLength = 20
)

// statFields returns what follows the name, which may hold spaces and brackets.
func statFields(pid int) ([]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < statLength {
		return nil, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	return fields, nil
}

// readTree adds up a process and its descendants. A descendant that ends meanwhile
// is left out; the process itself has to be there.
func readTree(pid int, children map[int][]int) (use, error) {
	u := use{threads: map[int]thread{}, io: new([4]int64), pss: new(int64)}
	if err := u.add(pid); err != nil {
		return use{}, err
	}
	pending := append([]int(nil), children[pid]...)
	for len(pending) > 0 {
		next := pending[0]
		pending = append(pending[1:], children[next]...)
		if err := u.add(next); err != nil && !gone(err) {
			return use{}, err
		}
	}
	return u, nil
}

// gone reports that a process or thread ended while it was read.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)
}

func (u *use) add(pid int) error {
	fields, err := statFields(pid)
	if err != nil {
		return err
	}
	if fields[0] == "Z" {
		return fmt.Errorf("it has ended: %w", syscall.ESRCH)
	}
	ticks, err := integers(fields[statUser], fields[statSystem])
	if err != nil {
		return fmt.Errorf("/proc/%d/stat: %w", pid, err)
	}
	u.user += ticks[0] * microsPerTick
	u.system += ticks[1] * microsPerTick
	if err := u.addThreads(pid); err != nil {
		return err
	}
	u.addMemory(pid)
	u.addCalls(pid)
	return nil
}

func (u *use) addThreads(pid int) error {
	dirs, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return err
	}
	for _, d := range dirs {
		dir := filepath.Join("/proc", strconv.Itoa(pid), "task", d.Name())
		id, t, err := readThread(dir)
		if gone(err) {
			continue
		}
		if err != nil {
			return err
		}
		u.threads[id] = t
	}
	return nil
}

func readThread(dir string) (id int, t thread, err error) {
	schedstat, err := os.ReadFile(filepath.Join(dir, "schedstat"))
	if err != nil {
		return 0, thread{}, err
	}
	status, err := pairs(filepath.Join(dir, "status"))
	if err != nil {
		return 0, thread{}, err
	}
	onCore, _, _ := strings.Cut(string(schedstat), " ")
	n, err := integers(onCore, status["voluntary_ctxt_switches"], status["nonvoluntary_ctxt_switches"], status["Pid"])
	if err != nil {
		return 0, thread{}, fmt.Errorf("%s: %w", dir, err)
	}
	return int(n[3]), thread{nanos: n[0], voluntary: n[1], involuntary: n[2]}, nil
}

// addMemory adds the resident memory. The proportional share, which counts pages
// of several processes once, is not everybody's to read.
func (u *use) addMemory(pid int) {
	rollup, err := pairs(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err == nil {
		if n, err := integers(kilobytes(rollup["Rss"]), kilobytes(rollup["Pss"]), kilobytes(rollup["Anonymous"])); err == nil {
			u.rss += n[0] << 10
			u.anonymous += n[2] << 10
			if u.pss != nil {
				*u.pss += n[1] << 10
			}
			return
		}
	}
	u.pss = nil
	if status, err := pairs(fmt.Sprintf("/proc/%d/status", pid)); err == nil {
		if n, err := integers(kilobytes(status["VmRSS"]), kilobytes(status["RssAnon"])); err == nil {
			u.rss += n[0] << 10
			u.anonymous += n[1] << 10
		}
	}
}

// addCalls adds the counts of calls, which a kernel may be built without.
func (u *use) addCalls(pid int) {
	counts, err := pairs(fmt.Sprintf("/proc/%d/io", pid))
	if err == nil && u.io != nil {
		if n, err := integers(counts["syscr"], counts["syscw"], counts["rchar"], counts["wchar"]); err == nil {
			for i := range n {
				u.io[i] += n[i]
			}
			return
		}
	}
	u.io = nil
}

// pairs reads a file of lines "name: value".
func pairs(path string) (map[string]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	m := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok {
			m[name] = strings.TrimSpace(value)
		}
	}
	return m, nil
}

func kilobytes(v string) string { return strings.TrimSpace(strings.TrimSuffix(v, "kB")) }

func integers(texts ...string) ([]int64, error) {
	out := make([]int64, len(texts))
	for i, text := range texts {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%q is no number", text)
		}
		out[i] = n
	}
	return out, nil
}
