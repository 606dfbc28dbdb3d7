// Package vm boots a Linux machine of our own under QEMU, so that tests can use
// a real AF_VSOCK and a real TAP device wherever they run. It makes the initial
// file system and reads what the guest reports; what happens inside is the
// guest's business (package main in guest/), and it downloads nothing: the
// kernel is put in its place by `make deps`.
package vm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// EndStep is the name of the last step that a guest reports. A guest whose
// reports end without it has crashed or was stopped by the deadline.
const EndStep = "end"

// ReportStep is the step of a measurement that has its report, as a value of the same
// name.
const ReportStep = "report"

// maxLine bounds a line that the guest reports: one may hold a whole measurement.
const maxLine = 16 << 20

// A Step is one line that the guest writes to its second serial port: what it
// did, and how it went. The first port is the console, for people.
type Step struct {
	Name   string         `json:"name"`
	Err    string         `json:"err,omitempty"` // empty if the step held
	Values map[string]any `json:"values,omitempty"`
	Millis int64          `json:"ms"` // how long the step took, inside
}

// A Machine is what is booted, and with what inside.
type Machine struct {
	Kernel Kernel
	// Modules are loaded by the guest in the order that their dependencies ask for.
	Modules []string
	// Files are copied into the initial file system: the path inside, the path here.
	// The guest itself must be at InitPath. All are static binaries.
	Files map[string]string
	// Measure are arguments of /bin/bench run, which the guest then runs in place of
	// its scenario, and whose report is the value of the step ReportStep. Nil means the
	// scenario.
	Measure []string
	// MemoryMiB and CPUs default to 1024 and 2.
	MemoryMiB, CPUs int
	// Console is the file that keeps the console log. Its folder must exist.
	Console string
}

// Boot runs the machine until it switches itself off or ctx ends, and returns
// what the guest reported in the order of the reports, also beside an error. The
// error is non-nil if QEMU failed, ctx ended, or the last step is not EndStep; a
// step that failed inside is not an error of Boot: see Failed.
func (m Machine) Boot(ctx context.Context) ([]Step, error) {
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		return nil, fmt.Errorf("vm: find QEMU: %w", err)
	}
	dir, err := os.MkdirTemp("", "corridor-vm-")
	if err != nil {
		return nil, fmt.Errorf("vm: make work folder: %w", err)
	}
	defer os.RemoveAll(dir)

	initrd, reports := filepath.Join(dir, "initrd"), filepath.Join(dir, "reports")
	if err := m.writeInitrd(initrd); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, qemu, m.arguments(initrd, reports)...)
	cmd.WaitDelay = 5 * time.Second
	out, runErr := cmd.CombinedOutput()
	steps, err := readSteps(reports)
	switch {
	case ctx.Err() != nil:
		return steps, fmt.Errorf("vm: the machine did not switch itself off in time: %w", ctx.Err())
	case runErr != nil:
		return steps, fmt.Errorf("vm: run QEMU: %w: %s", runErr, out)
	case err != nil:
		return steps, err
	case len(steps) == 0 || steps[len(steps)-1].Name != EndStep:
		return steps, errors.New("vm: the guest stopped before its last step")
	}
	return steps, nil
}

// arguments is QEMU's command line. There is no network, no disk and no monitor:
// what goes in is the initial file system, what comes out are two serial ports.
// KVM is left alone: in a machine that is virtual itself it may be there and not
// work, and nothing that is tested depends on speed. The CPU has all that QEMU
// emulates but cmpxchg16b, with which the kernel's allocator takes its short way:
// under QEMU 7.2 every second boot on a busy machine ended in a double fault right
// behind that instruction, the flags register full of foreign bits. Without it the
// allocator takes a lock.
func (m Machine) arguments(initrd, reports string) []string {
	memory, cpus := m.MemoryMiB, m.CPUs
	if memory == 0 {
		memory = 1024
	}
	if cpus == 0 {
		cpus = 2
	}
	return []string{
		"-machine", "pc", "-accel", "tcg,thread=multi", "-cpu", "max,cx16=off",
		"-m", strconv.Itoa(memory), "-smp", strconv.Itoa(cpus),
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-monitor", "none", "-nic", "none",
		"-serial", "file:" + m.Console,
		"-serial", "file:" + reports,
		"-kernel", m.Kernel.Image, "-initrd", initrd,
		// A panic ends the machine at once (with -no-reboot) instead of waiting for the deadline.
		"-append", "console=ttyS0 panic=-1 quiet loglevel=5 random.trust_cpu=on mitigations=off",
	}
}

// Failed returns the steps that did not hold.
func Failed(steps []Step) []Step {
	var failed []Step
	for _, s := range steps {
		if s.Err != "" {
			failed = append(failed, s)
		}
	}
	return failed
}

// readSteps reads what the guest wrote to its second serial port.
func readSteps(path string) ([]Step, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("vm: open reports: %w", err)
	}
	defer f.Close()

	var steps []Step
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			continue
		}
		var s Step
		if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
			return steps, fmt.Errorf("vm: report %q: %w", lines.Text(), err)
		}
		steps = append(steps, s)
	}
	if err := lines.Err(); err != nil {
		return steps, fmt.Errorf("vm: read reports: %w", err)
	}
	return steps, nil
}
