package process_test

import (
	"net"
	"slices"
	"strings"
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
