// Package htmlreport draws a report as one HTML page that needs nothing else: no
// script, no font, no picture from elsewhere. It computes no statistics; what it
// shows is in the report.
package htmlreport

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"

	"github.com/corridor-enclave/corridor/bench/report"
)

//go:embed page.html
var page string

// Write writes the page of a report. Its size grows with the number of results.
func Write(w io.Writer, r *report.Report) error {
	t, err := template.New("page").Parse(page)
	if err != nil {
		return fmt.Errorf("htmlreport: %w", err)
	}
	if err := t.Execute(w, newView(r)); err != nil {
		return fmt.Errorf("htmlreport: write the page: %w", err)
	}
	return nil
}

// A view is what the template shows.
type view struct {
	*report.Report
	Subtitle string
	Sections []section
	Table    []row
	Columns  []string
	Facts    []fact
	Failures []string
}

// A section is a heading with figures. One without figures is not shown.
type section struct {
	ID, Title, Intro string
	Figures          []figure
}

type figure struct {
	Title, Caption string
	Legend         []key
	Chart          template.HTML
}

// A key says what a colour means.
type key struct {
	Class, Name string
}

type fact struct{ Name, Value string }

// A row is one result of the table of all figures.
type row struct {
	Hop, Variant, Load string
	Cells              []cell
}

type cell struct {
	Median, Interval string
	Noisy            bool
}

func newView(r *report.Report) view {
	h := newHues(r)
	v := view{Report: r, Facts: facts(r), Subtitle: subtitle(r), Failures: failures(r)}
	for _, s := range []section{
		{ID: "microseconds", Title: "Where the microseconds go", Figures: stacks(r),
			Intro: "CPU time for one operation: what the part that is measured uses itself, in user mode and in the kernel, and what the app behind it uses. Medians of all rounds. This is the figure to trust on a machine that others use too."},
		{ID: "peers", Title: "Side by side", Figures: peers(r, h),
			Intro: "Medians, with the interval that holds each with 95 %. Bars whose intervals overlap are not told apart by this run."},
		{ID: "latency", Title: "Latency", Figures: distributions(r, h),
			Intro: "The share of answers that came within a time. The scale is stretched such that 90 %, 99 % and 99.9 % are equally far apart: the tail is what users remember."},
		{ID: "saturation", Title: "Saturation", Figures: curves(r, h),
			Intro: "How a hop behaves while the load grows, and past the point where it breaks."},
		{ID: "causal", Title: "If a hop were faster", Figures: causal(r),
			Intro: "What the whole way would gain if one hop of it were faster, found by slowing down all the others."},
	} {
		if len(s.Figures) > 0 {
			v.Sections = append(v.Sections, s)
		}
	}
	v.Columns, v.Table = table(r)
	return v
}
