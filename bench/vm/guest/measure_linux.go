package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"github.com/corridor-enclave/corridor/bench/process"
	"github.com/corridor-enclave/corridor/bench/vm"
)

// measuredPath is where bench leaves its report.
const measuredPath = "/tmp/report.json"

// measurement runs bench in place of the scenario, and reports its report. How long
// that may take is decided outside.
func measurement(ctx context.Context, r *reporter) {
	r.step("modules", func() (values, error) { return nil, loadModules() })
	r.step("addresses", func() (values, error) { return nil, addAddress("lo", [4]byte{127, 0, 0, 1}) })
	r.step("measure", func() (values, error) { return nil, runBench(ctx) })
	if r.failed {
		return
	}
	text, err := os.ReadFile(measuredPath)
	if err != nil {
		r.write(vm.Step{Name: vm.ReportStep, Err: err.Error()})
		return
	}
	r.write(vm.Step{Name: vm.ReportStep, Values: values{vm.ReportStep: json.RawMessage(text)}})
}

func runBench(ctx context.Context) error {
	list, err := os.ReadFile(vm.MeasureList)
	if err != nil {
		return fmt.Errorf("guest: %w", err)
	}
	var arguments []string
	if err := json.Unmarshal(list, &arguments); err != nil {
		return fmt.Errorf("guest: %s: %w", vm.MeasureList, err)
	}
	bench, err := process.Start(process.Command{
		Path: "/bin/bench", Echo: os.Stderr, Args: slices.Concat([]string{"run"}, arguments, []string{"--kernel-vsock", "--out", measuredPath}),
	})
	if err != nil {
		return err
	}
	select {
	case <-bench.Done():
	case <-ctx.Done():
		return ctx.Err()
	}
	if code := bench.ExitCode(); code != 0 {
		return fmt.Errorf("guest: bench ended with code %d:\n%s", code, bench.Tail(20))
	}
	return nil
}
