package endtoend_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/corridor-enclave/corridor/bench/binaries"
	"github.com/corridor-enclave/corridor/bench/loadgen"
)

// hellos asks the app how many requests it has counted.
func (c *corridor) hellos() int64 {
	c.t.Helper()
	n, err := strconv.ParseInt(strings.TrimSpace(c.mustGet("/count")), 10, 64)
	if err != nil {
		c.t.Fatal(err)
	}
	return n
}

// TestIntegrationCounts: what the generators sent is what arrived at the app, no
// request was lost, doubled, or answered by anybody else.
func TestIntegrationCounts(t *testing.T) {
	c := newCorridor(t)
	tools := t.TempDir()
	generators := []struct {
		program binaries.Program
		run     func(context.Context, string, loadgen.Load) (loadgen.Result, error)
	}{
		{binaries.Bombardier, loadgen.Bombardier},
		{binaries.Baton, loadgen.Baton},
	}
	for _, g := range generators {
		path, err := binaries.Build(t.Context(), tools, g.program)
		if err != nil {
			t.Fatal(err)
		}
		for _, connections := range []int{1, 16, 128} {
			t.Run(fmt.Sprintf("%s with %d connections", g.program, connections), func(t *testing.T) {
				before := c.hellos()
				load := loadgen.Load{URL: "https://" + c.address + "/hello", Connections: connections, Requests: 4096, Insecure: true}
				r, err := g.run(patient(t), path, load)
				if err != nil {
					t.Fatal(err)
				}
				if err := r.Clean(); err != nil {
					t.Error(err)
				}
				if arrived := c.hellos() - before; arrived != r.Requests || r.Requests != int64(load.Requests) {
					t.Errorf("asked for %d requests, the generator sent %d, the app saw %d", load.Requests, r.Requests, arrived)
				}
			})
		}
	}
}
