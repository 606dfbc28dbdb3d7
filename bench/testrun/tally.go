package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"sort"
	"strings"
)

// An event is one line of `go test -json` (go doc test2json; ImportPath and the
// two build actions come from the go command itself, go help buildjson).
type event struct {
	Action     string
	Package    string
	ImportPath string
	Test       string
	Output     string
}

// A tally prints what is worth reading while tests run, and counts. Tests and
// their subtests count alike; a package that fails without a failed test, since
// it does not compile for example, counts as one.
type tally struct {
	out             io.Writer
	passed, failed  int
	skipped         []skip
	output          map[string][]string // of the tests that still run, by package and test
	failedInPackage map[string]int
}

// A skip is one test that was not run, and the reason that it gave.
type skip struct{ pkg, test, reason string }

func newTally(out io.Writer) *tally {
	return &tally{out: out, output: map[string][]string{}, failedInPackage: map[string]int{}}
}

// read takes in the events of one run of `go test -json`.
func (t *tally) read(r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20) // a test may print a long line
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("testrun: event %q: %w", lines.Text(), err)
		}
		t.take(e)
	}
	return lines.Err()
}

func (t *tally) take(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "build-output":
		fmt.Fprint(t.out, e.Output)
	case "output":
		if e.Test != "" {
			t.output[key] = append(t.output[key], e.Output)
		} else if e.Output != "PASS\n" {
			fmt.Fprint(t.out, e.Output)
		}
	case "pass":
		if e.Test != "" {
			t.passed++
		}
		t.showRaces(key)
		delete(t.output, key)
	case "skip":
		if e.Test != "" { // a package without tests is "skipped" too
			t.skipped = append(t.skipped, skip{e.Package, e.Test, reason(t.output[key])})
		}
		delete(t.output, key)
	case "fail":
		t.fail(e, key)
	}
}

// showRaces prints what a test said that passed, if the race detector spoke in
// its midst: it blames whichever test runs, and prints wherever the output is.
func (t *tally) showRaces(key string) {
	lines := strings.Join(t.output[key], "")
	if strings.Contains(lines, "WARNING: DATA RACE") {
		fmt.Fprint(t.out, lines)
	}
}

func (t *tally) fail(e event, key string) {
	if e.Test == "" && t.failedInPackage[e.Package] > 0 {
		return // its tests have been counted
	}
	t.failed++
	t.failedInPackage[e.Package]++
	for _, line := range t.output[key] {
		fmt.Fprint(t.out, line)
	}
	delete(t.output, key)
}

// reason is what a test said when it skipped, without the frame around it:
//
//	=== RUN   TestX
//	    x_test.go:9: needs root (remedy: run as root): not permitted
//	--- SKIP: TestX (0.00s)
func reason(lines []string) string {
	var said []string
	for _, line := range lines {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "===") || strings.HasPrefix(line, "---") {
			continue
		}
		if _, text, ok := strings.Cut(line, ".go:"); ok {
			if _, text, ok := strings.Cut(text, ": "); ok {
				line = text
			}
		}
		said = append(said, line)
	}
	if len(said) == 0 {
		return "no reason given"
	}
	return strings.Join(said, "; ")
}

// close prints the skipped tests and the closing line, and reports whether the
// run held: nothing failed, something ran, and nothing was skipped where all
// tests are required.
func (t *tally) close(requireAll bool) bool {
	if len(t.skipped) > 0 {
		fmt.Fprintln(t.out, "\nskipped:")
		sort.Slice(t.skipped, func(i, j int) bool { return t.skipped[i].pkg < t.skipped[j].pkg })
		for _, s := range t.skipped {
			fmt.Fprintf(t.out, "  %s %s: %s\n", s.pkg, s.test, s.reason)
		}
	}
	held := t.failed == 0 && t.passed > 0
	if requireAll && len(t.skipped) > 0 {
		fmt.Fprintln(t.out, "\nCORRIDOR_REQUIRE=all: the skipped tests are failures")
		t.failed += len(t.skipped)
		t.skipped, held = nil, false
	}
	fmt.Fprintf(t.out, "\n%d passed, %d failed, %d skipped\n", t.passed, t.failed, len(t.skipped))
	return held
}
