package process_test

import (
	"testing"

	"github.com/corridor-enclave/corridor/bench/cores"
	"github.com/corridor-enclave/corridor/bench/process"
)

func TestCores(t *testing.T) {
	t.Parallel()
	if p, err := process.Start(process.Command{Path: "/bin/true", Cores: []int{}}); err == nil {
		p.Kill()
		t.Error("started on no core")
	}
	all, err := cores.Allowed()
	if err != nil {
		t.Fatal(err)
	}
	p, err := process.Start(process.Command{Path: "/usr/bin/nproc", Cores: all[len(all)-1:]})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	if r, err := p.Wait(t.Context(), func(process.Record) bool { return true }); err != nil || r.Line != "1" {
		t.Errorf("it has %q cores, %v", r.Line, err)
	}
	if after, err := cores.Allowed(); err != nil || len(after) != len(all) {
		t.Errorf("%d cores are left of %d, %v", len(after), len(all), err)
	}
}
