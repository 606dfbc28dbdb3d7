// Command testrun runs `go test` and says at the end what nobody should have to
// search for: which tests were skipped, and what each would need. It decides
// nothing about the tests themselves; it only orders and counts them.
//
//	testrun [-race] PACKAGES...
//
// The enclave's packages run twice, as enclave and as enclave-sim. bench and the
// packages below it run behind all others and one at a time, because they
// start whole machines and whole corridors. With CORRIDOR_REQUIRE=all a skipped
// test counts as a failed run. Exit codes: 0 all held, 1 not, 2 wrong usage.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("testrun", flag.ContinueOnError)
	flags.SetOutput(stderr)
	race := flags.Bool("race", false, "with the race detector")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if flags.NArg() == 0 {
		fmt.Fprintln(stderr, "testrun: name the packages, for example ./...")
		return 2
	}
	packages, err := list(ctx, "", flags.Args())
	simulated, simErr := list(ctx, "sim", flags.Args())
	if err := errors.Join(err, simErr); err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	t := newTally(stdout)
	clean := true
	for _, p := range split(packages, simulated) {
		if err := p.run(ctx, *race, t, stderr); err != nil {
			fmt.Fprintln(stderr, err)
			clean = false
		}
	}
	held := t.close(os.Getenv("CORRIDOR_REQUIRE") == "all")
	if !held || !clean {
		return 1
	}
	return 0
}

// list expands patterns such as ./... to import paths, with a build tag.
func list(ctx context.Context, tag string, patterns []string) ([]string, error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"list", "-tags=" + tag, "--"}, patterns...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("testrun: list packages: %w", err)
	}
	return strings.Fields(string(out)), nil
}

// A phase is a group of packages that one `go test` runs.
type phase struct {
	name     string
	packages []string
	serial   bool
	tags     string
}

// split puts bench and the packages below it into a phase of their own, and runs
// those of the enclave once more as they are in enclave-sim.
func split(packages, simulated []string) []phase {
	units := phase{name: "units"}
	sim := phase{name: "units of enclave-sim", tags: "sim"}
	whole := phase{name: "integration", serial: true}
	for _, p := range packages {
		if strings.Contains(p+"/", "/bench/") {
			whole.packages = append(whole.packages, p)
		} else {
			units.packages = append(units.packages, p)
		}
	}
	for _, p := range simulated {
		if strings.Contains(p+"/", "/enclave/") {
			sim.packages = append(sim.packages, p)
		}
	}
	return []phase{units, sim, whole}
}

// run runs the phase. Its error is about the run itself; tests that failed are
// in the tally.
func (p phase) run(ctx context.Context, race bool, t *tally, stderr io.Writer) error {
	if len(p.packages) == 0 {
		return nil
	}
	fmt.Fprintf(stderr, "testrun: %s, %d packages\n", p.name, len(p.packages))
	args := []string{"test", "-json", "-count=1"} // a result of another day says nothing about this machine
	if race {
		args = append(args, "-race")
	}
	if p.tags != "" {
		args = append(args, "-tags="+p.tags)
	}
	if p.serial {
		args = append(args, "-p=1")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, p.packages...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Stderr = stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("testrun: %s: %w", p.name, err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("testrun: %s: %w", p.name, err)
	}
	before := t.failed
	readErr := t.read(out)
	_, _ = io.Copy(io.Discard, out) // what cannot be understood must not block the tests
	err = cmd.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && t.failed > before {
		err = nil // that is what failed tests look like
	}
	if err = errors.Join(readErr, err); err != nil {
		return fmt.Errorf("testrun: %s: %w", p.name, err)
	}
	return nil
}
