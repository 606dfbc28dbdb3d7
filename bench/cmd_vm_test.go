package main

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/corridor-enclave/corridor/bench/binaries"
	"github.com/corridor-enclave/corridor/bench/report"
	"github.com/corridor-enclave/corridor/bench/vm"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

func TestVMRefuses(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"--hops", "nothing"}, {"--variants", "nothing"}, {"--loads", "nothing"}, {"--rounds", "-1"}, {"--limit", "0s"},
	} {
		if code := run(t.Context(), append([]string{"vm"}, args...), nil, &bytes.Buffer{}, &bytes.Buffer{}); code != exitUsage {
			t.Errorf("%q: exit code %d", args, code)
		}
	}
}

func TestMeasuredBy(t *testing.T) {
	t.Parallel()
	values := func(text string) map[string]any {
		var v any
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Fatal(err)
		}
		return map[string]any{vm.ReportStep: v}
	}
	for _, steps := range [][]vm.Step{
		nil, {{Name: "measure"}, {Name: vm.EndStep}}, {{Name: vm.ReportStep}}, {{Name: vm.ReportStep, Values: values(`{"schema":0}`)}},
	} {
		if r, err := measuredBy(steps); err == nil {
			t.Errorf("%+v: %+v", steps, r)
		}
	}
	r, err := measuredBy([]vm.Step{{Name: vm.ReportStep, Values: values(`{"schema":1,"title":"inside"}`)}, {Name: vm.EndStep}})
	if err != nil || r.Title != "inside" {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestIntegrationVM measures a bare connection over the kernel's VSOCK, in the machine.
func TestIntegrationVM(t *testing.T) {
	_, err := exec.LookPath("qemu-system-x86_64")
	tapstacktest.Require(t, err, "QEMU", "make deps, as root")
	_, err = vm.FindKernel()
	tapstacktest.Require(t, err, "a kernel for the test machine", "make deps, or CORRIDOR_KERNEL=FOLDER")
	bin := t.TempDir()
	for _, p := range []binaries.Program{binaries.Bench, binaries.EnclaveSim, binaries.Host} {
		if _, err := binaries.Build(t.Context(), bin, p); err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(t.TempDir(), "report.json")
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"vm", "--bin", bin, "--out", out, "--rounds", "1", "--seconds", "1",
		"--hops", "transport", "--variants", "vsock", "--loads", "1 connection"}, nil, &stdout, &stderr); code != exitOK {
		t.Fatalf("exit code %d: %s", code, stderr.Bytes())
	}
	r, err := report.Read(out)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Machine.Emulated || len(r.Results) != 1 || r.Results[0].Summary[report.Rate].Median <= 0 {
		t.Errorf("%+v", r)
	}
}
