package hops_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corridor-enclave/corridor/bench/hops"
)

func TestHopsAreDescribed(t *testing.T) {
	t.Parallel()
	for _, h := range hops.All() {
		if h.About == "" || len(h.Loads) == 0 {
			t.Errorf("%s: says nothing about itself, or has no load", h.Name)
		}
		loads, variants := map[string]bool{}, map[string]bool{}
		for _, l := range h.Loads {
			if loads[l.Name] || l.Connections < 1 || l.Kind == "" || l.Generator == "" {
				t.Errorf("%s: load %+v is there twice or incomplete", h.Name, l)
			}
			loads[l.Name] = true
		}
		for _, v := range h.Variants {
			if variants[v.Name] {
				t.Errorf("%s: %s twice", h.Name, v.Name)
			}
			variants[v.Name] = true
		}
		if !variants[h.Baseline] {
			t.Errorf("%s: its baseline %q is none of its variants", h.Name, h.Baseline)
		}
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	for _, names := range [][]string{{"nothing"}, {"proxy", "nothing"}, {"proxy", "proxy"}} {
		if _, err := hops.Find(names); err == nil {
			t.Errorf("found %q", names)
		}
	}
	found, err := hops.Find([]string{"link", "proxy"})
	if err != nil || len(found) != 2 || found[0].Name != "proxy" {
		t.Errorf("found %v, %v; want them in the order of the way", found, err)
	}
}

// TestMissingIsNamed starts every variant where nothing of ours was built: each says
// what it needs and what would help, and leaves nothing behind.
func TestMissingIsNamed(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	empty := t.TempDir()
	for _, h := range hops.All() {
		for _, v := range h.Variants {
			running, err := v.Start(t.Context(), hops.Tools{Bin: empty})
			if err == nil && running.Work != nil { // which needs no program
				if err := errors.Join(running.Work(t.Context()), running.Stop()); err != nil {
					t.Errorf("%s/%s: %v", h.Name, v.Name, err)
				}
				continue
			}
			missing := (*hops.Missing)(nil)
			if !errors.As(err, &missing) || missing.Remedy == "" || !strings.Contains(err.Error(), v.Name) {
				t.Errorf("%s/%s: error %v, want one that says what is missing", h.Name, v.Name, err)
			}
		}
	}
	left, err := filepath.Glob(filepath.Join(temp, "*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if _, err := os.Stat(temp); err != nil {
		t.Fatal(err)
	}
}
