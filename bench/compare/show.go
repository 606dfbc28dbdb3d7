package compare

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Show writes the real changes, and one line that says how many there are.
func (v Verdict) Show(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	changed := 0
	for _, c := range v.Changes {
		if !c.Real {
			continue
		}
		if changed++; changed == 1 {
			fmt.Fprint(t, "what\tbefore\tafter\tchange\t95 %\tthe machine\t\n")
		}
		direction := "better"
		if c.Worse() {
			direction = "worse"
		}
		fmt.Fprintf(t, "%s\t%.4g\t%.4g %s\t%+.1f%%\t%+.1f%% to %+.1f%%\t%+.1f%%\t%s\n", c.Name(), c.A, c.B, c.Metric.Unit(),
			100*(c.Ratio-1), 100*(c.Low-1), 100*(c.High-1), 100*(c.Drift-1), direction)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("compare: %w", err)
	}
	for _, note := range v.Notes {
		fmt.Fprintln(w, "note:", note)
	}
	_, err := fmt.Fprintf(w, "%d figures compared, %d changed beyond noise\n", len(v.Changes), changed)
	if err != nil {
		return fmt.Errorf("compare: %w", err)
	}
	return nil
}
