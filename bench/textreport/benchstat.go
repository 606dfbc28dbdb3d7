package textreport

import (
	"fmt"
	"io"
	"strings"

	"github.com/corridor-enclave/corridor/bench/report"
)

// Benchstat writes one line for each sample in Go's benchmark format, so that
// benchstat and its kin can be used on a report.
func Benchstat(w io.Writer, r *report.Report) error {
	if _, err := fmt.Fprintf(w, "goos: %s\ngoarch: %s\npkg: corridor/bench\ncpu: %s\n", r.Machine.OS, r.Machine.Arch, r.Machine.CPU); err != nil {
		return fmt.Errorf("textreport: %w", err)
	}
	for _, result := range r.Results {
		for _, s := range result.Samples {
			if s.Failure != "" {
				continue
			}
			line := fmt.Sprintf("Benchmark%s %d", benchmarkName(result), max(1, s.OK))
			for _, m := range report.Metrics() {
				if v, ok := s.Values[m]; ok {
					line += fmt.Sprintf(" %.6g %s", v, m.Unit())
				}
			}
			if _, err := fmt.Fprintln(w, line); err != nil {
				return fmt.Errorf("textreport: %w", err)
			}
		}
	}
	return nil
}

// benchmarkName is Hop/variant=x/load=y-z: the format ends a name at a blank.
func benchmarkName(r report.Result) string {
	hop := strings.ToUpper(r.Hop[:min(1, len(r.Hop))]) + r.Hop[min(1, len(r.Hop)):]
	return fmt.Sprintf("%s/variant=%s/load=%s", hop, r.Variant, strings.ReplaceAll(r.Load.Name, " ", "-"))
}
