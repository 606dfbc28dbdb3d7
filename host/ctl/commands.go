package ctl

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"text/tabwriter"

	"github.com/corridor-enclave/corridor/host/balance"
	"github.com/corridor-enclave/corridor/host/running"
)

// list shows settings as a TOML file would say them.
func (c *Command) list(ctx context.Context, words []string) error {
	var l running.Listing
	if err := c.ask(ctx, http.MethodGet, "/v1/config", nil, &l); err != nil {
		return err
	}
	fmt.Fprintf(c.Stdout, "# revision %s\n", l.Revision)
	for _, name := range sorted(l.Settings) {
		if len(words) < 2 || words[1] == name {
			writeTOML(c.Stdout, name, l.Settings[name])
		}
	}
	return nil
}

// writeTOML writes a setting such that a file may hold it. JSON's strings are
// TOML's, as far as settings go.
func writeTOML(w io.Writer, name string, values []string) {
	if len(values) == 1 {
		fmt.Fprintf(w, "%s = %s\n", name, quote(values[0]))
		return
	}
	fmt.Fprintf(w, "%s = [\n", name)
	for _, v := range values {
		fmt.Fprintf(w, "  %s,\n", quote(v))
	}
	fmt.Fprintln(w, "]")
}

func quote(v string) string {
	text, err := json.Marshal(v)
	if err != nil {
		return v // cannot be: it is a string
	}
	return string(text)
}

func (c *Command) get(ctx context.Context, words []string) error {
	var l running.Listing
	if err := c.ask(ctx, http.MethodGet, "/v1/config", nil, &l); err != nil {
		return err
	}
	for _, v := range l.Settings[words[1]] {
		fmt.Fprintln(c.Stdout, v)
	}
	return nil
}

// step is set, add and remove.
func (c *Command) step(ctx context.Context, words []string) error {
	return c.take(ctx, running.Op{Do: words[0], Setting: words[1], Values: words[2:]})
}

func (c *Command) take(ctx context.Context, ops ...running.Op) error {
	body, err := json.Marshal(ops)
	if err != nil {
		return err
	}
	return c.change(ctx, http.MethodPatch, "/v1/config", body)
}

func (c *Command) patch(ctx context.Context, words []string) error {
	body, err := c.read(words[1])
	if err != nil {
		return err
	}
	return c.change(ctx, http.MethodPatch, "/v1/config", body)
}

// replace is diff and apply.
func (c *Command) replace(ctx context.Context, words []string) error {
	body, err := c.read(words[1])
	if err != nil {
		return err
	}
	c.dryRun = c.dryRun || words[0] == "diff"
	return c.change(ctx, http.MethodPut, "/v1/config", body)
}

func (c *Command) reload(ctx context.Context, _ []string) error {
	return c.change(ctx, http.MethodPost, "/v1/config/reload", nil)
}

// change sends a change, and shows what it did.
func (c *Command) change(ctx context.Context, method, path string, body []byte) error {
	var a running.Answer
	if err := c.ask(ctx, method, path, body, &a); err != nil {
		return err
	}
	for _, o := range a.Changes {
		fmt.Fprintln(c.Stdout, o)
	}
	fmt.Fprintf(c.Stdout, "# revision %s\n", a.Revision)
	return nil
}

// drain is drain and resume.
func (c *Command) drain(ctx context.Context, words []string) error {
	if words[0] == "resume" {
		return c.take(ctx, running.Op{Do: running.Remove, Setting: "drain", Values: words[1:]})
	}
	if err := c.take(ctx, running.Op{Do: running.Add, Setting: "drain", Values: words[1:]}); err != nil || !c.wait || c.dryRun {
		return err
	}
	for {
		var i balance.Idle
		if err := c.ask(ctx, http.MethodGet, "/v1/enclaves/"+words[1]+"/idle", nil, &i); err != nil {
			return err
		}
		if i.Idle {
			fmt.Fprintf(c.Stdout, "CID %s has no connection any more\n", words[1])
			return nil
		}
		fmt.Fprintf(c.Stderr, "CID %s has %d connections\n", words[1], i.Connections)
	}
}

func (c *Command) enclaves(ctx context.Context, _ []string) error {
	var all []struct {
		CID             uint32
		Health, Reason  string
		Drained         bool
		Connections     int
		Taken, Failures uint64
	}
	if err := c.ask(ctx, http.MethodGet, "/v1/enclaves", nil, &all); err != nil {
		return err
	}
	t := tabwriter.NewWriter(c.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CID\thealth\tdrained\tconnections\ttaken\tfailures\treason")
	for _, e := range all {
		fmt.Fprintf(t, "%d\t%s\t%t\t%d\t%d\t%d\t%s\n", e.CID, e.Health, e.Drained, e.Connections, e.Taken, e.Failures, e.Reason)
	}
	return t.Flush()
}

func (c *Command) status(ctx context.Context, _ []string) error {
	var all []struct {
		Port                          string
		Connections, Accepted, Failed int64
		Refused                       map[string]int64
	}
	if err := c.ask(ctx, http.MethodGet, "/v1/published", nil, &all); err != nil {
		return err
	}
	t := tabwriter.NewWriter(c.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "published\tconnections\taccepted\tfailed\trefused")
	for _, p := range all {
		var refused int64
		for _, n := range p.Refused {
			refused += n
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\n", p.Port, p.Connections, p.Accepted, p.Failed, refused)
	}
	return t.Flush()
}

// upgrade asks for a new process; the answer comes when it has taken over.
func (c *Command) upgrade(ctx context.Context, _ []string) error {
	var done struct{ Process int }
	if err := c.ask(ctx, http.MethodPost, "/v1/upgrade", nil, &done); err != nil {
		return err
	}
	fmt.Fprintf(c.Stdout, "process %d has taken over\n", done.Process)
	return nil
}
