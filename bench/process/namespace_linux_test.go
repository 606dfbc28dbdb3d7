package process_test

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/corridor-enclave/corridor/bench/process"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

func TestIntegrationNamespace(t *testing.T) {
	t.Parallel()
	n, err := process.NewNamespace()
	tapstacktest.Require(t, err, "a network namespace of its own", "run as root")
	defer n.Close()
	inside := func() (names []string) {
		if err := n.Do(func() error {
			all, err := net.Interfaces()
			for _, i := range all {
				names = append(names, i.Name)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return names
	}
	if names := inside(); len(names) != 1 || names[0] != "lo" {
		t.Errorf("the namespace has %v, want lo alone", names)
	}
	p, err := process.Start(process.Command{Path: "/bin/cat", Args: []string{"/proc/net/dev"}, Namespace: n})
	if err != nil {
		t.Fatal(err)
	}
	if code := p.ExitCode(); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	lines := slices.DeleteFunc(p.Records(), func(r process.Record) bool { return !strings.Contains(r.Line, ":") })
	if len(lines) != 1 || !strings.HasPrefix(strings.TrimSpace(lines[0].Line), "lo:") {
		t.Errorf("the process sees %v, want lo alone", lines)
	}
	here, err := os.Readlink("/proc/self/ns/net")
	if there, linkErr := os.Readlink(n.Path()); err != nil || linkErr != nil || !strings.HasPrefix(there, "net:[") || there == here {
		t.Errorf("its path leads to %q, ours to %q: %v, %v", there, here, err, linkErr)
	}
	if _, err := process.NamespaceOf(-1); err == nil {
		t.Error("found the namespace of no process")
	}
	if own, err := process.NamespaceOf(os.Getpid()); err != nil {
		t.Error(err)
	} else if there, err := os.Readlink(own.Path()); err != nil || there != here || own.Close() != nil {
		t.Errorf("our own is %q, not %q: %v", there, here, err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := process.Start(process.Command{Path: "/bin/true", Namespace: n}); err == nil {
		t.Error("started in a namespace that is gone")
	}
	if err := n.Do(func() error { return nil }); err == nil {
		t.Error("entered a namespace that is gone")
	}
}

// TestIntegrationContained kills a process whose child ignores everything that can
// be ignored: the child must be gone with it.
func TestIntegrationContained(t *testing.T) {
	t.Parallel()
	p, err := process.Start(process.Command{
		Path: "/bin/sh", Contained: true,
		Args: []string{"-c", `trap "" TERM HUP; (trap "" TERM HUP; cat /dev/zero >/dev/null; :) & echo ready; wait`},
	})
	tapstacktest.Require(t, err, "a process namespace of its own", "run as root")
	defer p.Kill()
	if _, err := p.WaitMessage(t.Context(), "ready"); err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// Output is complete only when nobody holds the pipe any more; a child that
	// lived on would hold it beyond the delay that Done allows for.
	<-p.Done()
	if left := descendants(t, p.PID()); len(left) != 0 {
		t.Errorf("processes %v are left of %d", left, p.PID())
	}
}

// descendants returns the processes whose group is that of a contained command.
func descendants(t *testing.T, group int) (left []string) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(stats) == 0 {
		t.Fatalf("no processes: %v", err)
	}
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it ended
		}
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		if fields[0] != "Z" && fields[2] == strconv.Itoa(group) {
			left = append(left, path)
		}
	}
	return left
}
