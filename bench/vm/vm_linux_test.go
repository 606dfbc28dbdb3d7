package vm_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/bench/binaries"
	"github.com/corridor-enclave/corridor/bench/vm"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

// lifetime bounds the whole life of the machine, which without KVM is a slow one.
const lifetime = 8 * time.Minute

// TestIntegrationRealVSOCK runs the production binaries in a machine of our own:
// host and enclave in two network namespaces, joined by AF_VSOCK's loopback, with
// a TAP device made by the enclave. The steps are those of package main in guest/.
func TestIntegrationRealVSOCK(t *testing.T) {
	steps, err := bootScenario(t)
	for _, s := range steps {
		t.Logf("%6d ms  %s %v %s", s.Millis, s.Name, s.Values, s.Err)
	}
	if err != nil {
		t.Error(err)
	}
	for _, s := range vm.Failed(steps) {
		t.Errorf("step %q: %s", s.Name, s.Err)
	}
}

func bootScenario(t *testing.T) ([]vm.Step, error) {
	t.Helper()
	_, err := exec.LookPath("qemu-system-x86_64")
	tapstacktest.Require(t, err, "QEMU", "make deps, as root")
	kernel, err := vm.FindKernel()
	tapstacktest.Require(t, err, "a kernel for the test machine", "make deps, or CORRIDOR_KERNEL=FOLDER")

	ctx, cancel := context.WithTimeout(t.Context(), lifetime)
	defer cancel()
	dir := t.TempDir()
	files := map[string]string{}
	for inside, program := range map[string]binaries.Program{
		vm.InitPath: binaries.Guest, "/bin/host": binaries.Host, "/bin/enclave": binaries.Enclave,
	} {
		if files[inside], err = binaries.Build(ctx, dir, program); err != nil {
			t.Fatal(err)
		}
	}
	machine := vm.Machine{
		Kernel: kernel, Modules: []string{"vsock", "vsock_loopback", "tun", "cuse"}, Files: files,
		Console: filepath.Join(dir, "console.log"),
	}
	steps, err := machine.Boot(ctx)
	if err != nil || len(vm.Failed(steps)) > 0 {
		keepConsole(t, machine.Console)
	}
	return steps, err
}

// keepConsole copies the console log to artifacts/, where it outlives the test.
func keepConsole(t *testing.T, console string) {
	t.Helper()
	top, err := binaries.Top()
	if err != nil {
		t.Error(err)
		return
	}
	log, err := os.ReadFile(console)
	if err != nil {
		t.Errorf("read the console log: %v", err)
		return
	}
	kept := filepath.Join(top, "artifacts", "vm-console.log")
	if err := os.MkdirAll(filepath.Dir(kept), 0o755); err != nil {
		t.Error(err)
		return
	}
	if err := os.WriteFile(kept, log, 0o644); err != nil {
		t.Error(err)
		return
	}
	const tail = 8 << 10
	t.Logf("the console log is kept in %s; its end:\n%s", kept, log[max(0, len(log)-tail):])
}
