package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/corridor-enclave/corridor/bench/vm"
)

// A reporter writes what was done, one JSON object a line.
type reporter struct {
	out    io.Writer
	failed bool
}

// values are what a step measured or saw.
type values map[string]any

// step runs one step and reports it. After a step that failed the later ones are
// not run, since each builds on those before it.
func (r *reporter) step(name string, run func() (values, error)) {
	if r.failed {
		return
	}
	start := time.Now()
	v, err := run()
	s := vm.Step{Name: name, Values: v, Millis: time.Since(start).Milliseconds()}
	if err != nil {
		s.Err, r.failed = err.Error(), true
	}
	fmt.Fprintf(os.Stderr, "guest: %s: %v %v\n", name, v, err)
	r.write(s)
}

// end reports that all steps were run that could be.
func (r *reporter) end() { r.write(vm.Step{Name: vm.EndStep}) }

// write writes a line. A report that cannot be written is seen as missing by the
// reader, so the console is the only place left to complain.
func (r *reporter) write(s vm.Step) {
	line, err := json.Marshal(s)
	if err == nil {
		_, err = r.out.Write(append(line, '\n'))
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "guest: report %s: %v\n", s.Name, err)
	}
}
