package heap_test

import (
	"math"
	"os"
	"runtime/debug"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/corridor-enclave/corridor/tapstack/heap"
)

const meminfo = "MemTotal:        2048 kB\nMemFree:         1 kB\n"

func files(pairs ...string) fstest.MapFS {
	m := fstest.MapFS{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = &fstest.MapFile{Data: []byte(pairs[i+1])}
	}
	return m
}

func TestAvailable(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		files fstest.MapFS
		want  int64
		err   string
	}{
		{"nothing is known", files(), 0, "meminfo"},
		{"no total", files("proc/meminfo", "MemFree: 1 kB\n"), 0, "does not say"},
		{"another unit", files("proc/meminfo", "MemTotal: 1 MB\n"), 0, "does not say"},
		{"a negative total", files("proc/meminfo", "MemTotal: -1 kB\n"), 0, "does not say"},
		{"no groups", files("proc/meminfo", meminfo), 2 << 20, ""},
		{"groups of version 1", files("proc/meminfo", meminfo, "proc/self/cgroup", "3:memory:/a\n"), 2 << 20, ""},
		{"no limit", files("proc/meminfo", meminfo, "proc/self/cgroup", "0::/a\n", "sys/fs/cgroup/a/memory.max", "max\n"), 2 << 20, ""},
		{"a limit", files("proc/meminfo", meminfo, "proc/self/cgroup", "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max", "1048576\n"), 1 << 20, ""},
		{"a limit above", files("proc/meminfo", meminfo, "proc/self/cgroup", "0::/a/b\n", "sys/fs/cgroup/a/memory.max", "4096\n", "sys/fs/cgroup/a/b/memory.max", "max\n"), 4096, ""},
		{"the root, as in a container", files("proc/meminfo", meminfo, "proc/self/cgroup", "0::/\n", "sys/fs/cgroup/memory.max", "8192\n"), 8192, ""},
		{"more than the machine has", files("proc/meminfo", meminfo, "proc/self/cgroup", "0::/a\n", "sys/fs/cgroup/a/memory.max", "9223372036854775807\n"), 2 << 20, ""},
		{"out of the root", files("proc/meminfo", meminfo, "proc/self/cgroup", "0::/../../x\n"), 2 << 20, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := heap.Available(tt.files)
			if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%d, %v; want %d, %q", got, err, tt.want, tt.err)
			}
		})
	}
}

// It changes the process, so it is not parallel to itself, and puts things back.
func TestSet(t *testing.T) {
	oldPercent, oldLimit := debug.SetGCPercent(100), debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetGCPercent(oldPercent); debug.SetMemoryLimit(oldLimit) })
	machine := files("proc/meminfo", "MemTotal: 1073741824 kB\n")
	for _, tt := range []struct {
		name    string
		files   fstest.MapFS
		environ []string
		want    heap.Pace
	}{
		{"unknown", files(), nil, heap.Pace{}},
		{"the environment's", machine, []string{"GOGC=50", "GOMEMLIMIT=1GiB"}, heap.Pace{Memory: 1 << 40}},
		{"empty in the environment", machine, []string{"GOGC=", "GOMEMLIMIT=", "GOGCX=1"}, heap.Pace{Memory: 1 << 40, Percent: 400, Limit: 1 << 38}},
		{"ours", machine, nil, heap.Pace{Memory: 1 << 40, Percent: 400, Limit: 1 << 38}},
	} {
		debug.SetGCPercent(100)
		debug.SetMemoryLimit(math.MaxInt64)
		got, err := heap.Set(tt.files, 4, tt.environ)
		if got != tt.want || (err != nil) != (tt.name == "unknown") {
			t.Errorf("%s: %+v, %v; want %+v", tt.name, got, err, tt.want)
		}
		percent, limit := 100, int64(math.MaxInt64)
		if tt.want.Percent != 0 {
			percent, limit = tt.want.Percent, tt.want.Limit
		}
		if p, l := debug.SetGCPercent(100), debug.SetMemoryLimit(-1); p != percent || l != limit {
			t.Errorf("%s: the runtime has %d %% and %d bytes; want %d and %d", tt.name, p, l, percent, limit)
		}
	}
}

func TestOnThisMachine(t *testing.T) {
	t.Parallel()
	if n, err := heap.Available(os.DirFS("/")); err != nil || n < 1<<20 {
		t.Errorf("%d, %v", n, err)
	}
}
