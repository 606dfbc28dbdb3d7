package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/corridor-enclave/corridor/bench/htmlreport"
	"github.com/corridor-enclave/corridor/bench/report"
	"github.com/corridor-enclave/corridor/tapstack/settings"
)

func runHTML(_ context.Context, args, environ []string, stdout io.Writer) error {
	s := settings.New("bench html")
	in := settings.Var(s, "report", "", "the report to draw, a JSON `file`", parseText)
	out := settings.Var(s, "out", "", "write the page to this `file`; without, to standard output", parseText)
	if done, err := load(s, args, environ, stdout); done {
		return err
	}
	if *in == "" {
		return usageError{errors.New("--report: is needed")}
	}
	r, err := report.Read(*in)
	if err != nil {
		return err
	}
	if *out == "" {
		return htmlreport.Write(stdout, r)
	}
	f, err := os.Create(*out)
	if err != nil {
		return fmt.Errorf("bench html: %w", err)
	}
	return errors.Join(htmlreport.Write(f, r), f.Close())
}
