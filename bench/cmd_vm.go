package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/corridor-enclave/corridor/bench/binaries"
	"github.com/corridor-enclave/corridor/bench/hops"
	"github.com/corridor-enclave/corridor/bench/measure"
	"github.com/corridor-enclave/corridor/bench/report"
	"github.com/corridor-enclave/corridor/bench/vm"
	"github.com/corridor-enclave/corridor/tapstack/settings"
)

// What the machine measures unless it is told otherwise: what is ours, over VSOCK, and
// what is nothing but a connection.
const (
	vmHops     = "transport,stream,way"
	vmVariants = "tcp,unix,vsock,corridor,link,stream"
	vmLoads    = "1 connection,16 connections,checked uplink"
)

// runVM measures in a machine of our own, over a VSOCK that is the kernel's.
func runVM(ctx context.Context, args, environ []string, stdout io.Writer) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	s := settings.New("bench vm")
	bin := settings.Var(s, "bin", filepath.Dir(self), "`folder` of the binaries", parseText)
	out := settings.Var(s, "out", "", "`file` for the report, JSON", parseText)
	hopNames := settings.Var(s, "hops", vmHops, "`names` of hops with commas between", parseNames)
	variants := settings.Var(s, "variants", vmVariants, "`names` of variants to keep", parseNames)
	loads := settings.Var(s, "loads", vmLoads, "`names` of loads to keep", parseNames)
	rounds := settings.Var(s, "rounds", "3", "how many `times` each is measured", parseCount)
	seconds := settings.Var(s, "seconds", "2", "how many `seconds` each load takes", parseCount)
	limit := settings.Var(s, "limit", "15m", "how `long` the machine may live", parsePositive)
	if done, err := load(s, args, environ, stdout); done {
		return err
	}
	chosen, err := hops.Find(*hopNames)
	if err == nil {
		err = known(chosen, *variants, *loads)
	}
	if err != nil {
		return usageError{err}
	}
	machine, err := measuringMachine(ctx, *bin)
	if err != nil {
		return err
	}
	machine.Measure = []string{
		"--hops", commas(*hopNames), "--variants", commas(*variants), "--loads", commas(*loads),
		"--rounds", strconv.Itoa(*rounds), "--seconds", strconv.Itoa(*seconds),
	}
	ctx, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()
	r, err := measureInside(ctx, machine)
	if err != nil {
		return err
	}
	r.Title, r.Command, r.Source = "bench vm", append([]string{"bench", "vm"}, args...), measure.Source(ctx)
	return errors.Join(runSettings{out: out, lines: new(string)}.show(r, chosen, stdout), failedEverywhere(r))
}

// measuringMachine has all that a measurement needs inside.
func measuringMachine(ctx context.Context, bin string) (vm.Machine, error) {
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		return vm.Machine{}, fmt.Errorf("bench vm: needs QEMU (remedy: make deps, as root): %w", err)
	}
	kernel, err := vm.FindKernel()
	if err != nil {
		return vm.Machine{}, fmt.Errorf("bench vm: needs a kernel for the machine (remedy: make deps, or CORRIDOR_KERNEL=FOLDER): %w", err)
	}
	files := map[string]string{}
	tools := hops.Tools{Bin: bin}
	for _, p := range []binaries.Program{binaries.Host, binaries.EnclaveSim, binaries.Bench} {
		if files["/bin/"+string(p)], err = tools.Own(p); err != nil {
			return vm.Machine{}, err
		}
	}
	if files[vm.InitPath], err = tools.Built(ctx, binaries.Guest); err != nil {
		return vm.Machine{}, err
	}
	return vm.Machine{Kernel: kernel, Modules: []string{"vsock", "vsock_loopback", "tun"}, Files: files}, nil
}

// measureInside boots the machine and returns what was measured inside, marked as what
// it is.
func measureInside(ctx context.Context, machine vm.Machine) (*report.Report, error) {
	dir, err := os.MkdirTemp("", "corridor-bench-vm-")
	if err != nil {
		return nil, fmt.Errorf("bench vm: %w", err)
	}
	defer os.RemoveAll(dir)
	machine.Console = filepath.Join(dir, "console.log")
	fmt.Fprintln(os.Stderr, "bench vm: the machine is emulated: this takes some minutes")
	began := time.Now()
	steps, err := machine.Boot(ctx)
	for _, s := range vm.Failed(steps) {
		err = errors.Join(err, fmt.Errorf("bench vm: %s: %s", s.Name, s.Err))
	}
	if err != nil {
		return nil, errors.Join(err, consoleEnd(machine.Console))
	}
	r, err := measuredBy(steps)
	if err != nil {
		return nil, err
	}
	r.Machine.Emulated, r.Seconds = true, time.Since(began).Seconds()
	r.Warnings = append(r.Warnings, "measured inside an emulated machine: compare what is in this table with each other, and with nothing else")
	return r, nil
}

// measuredBy returns the report that is among the steps.
func measuredBy(steps []vm.Step) (*report.Report, error) {
	for _, s := range steps {
		if s.Name != vm.ReportStep {
			continue
		}
		text, err := json.Marshal(s.Values[vm.ReportStep])
		if err != nil {
			return nil, fmt.Errorf("bench vm: %w", err)
		}
		return report.Parse(text)
	}
	return nil, errors.New("bench vm: the machine measured nothing")
}

// consoleEnd is the end of the machine's log as an error, for who has to find out.
func consoleEnd(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	const tail = 4 << 10
	return fmt.Errorf("the end of its console:\n%s", text[max(0, len(text)-tail):])
}
