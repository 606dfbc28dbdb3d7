package sidecar

import (
	"errors"
	"slices"
	"testing"
)

// refusingPool cannot be seeded.
type refusingPool struct{ err error }

func (refusingPool) Source() (string, error)    { return "none", nil }
func (p refusingPool) Credit([]byte, int) error { return p.err }

// TestEntropy: no key is made of random numbers that nobody vouches for.
func TestEntropy(t *testing.T) {
	t.Parallel()
	refused := errors.New("not permitted")
	s := newTestSidecar(t, "--link", "off", "--fqdn", "a")
	if slices.ContainsFunc(s.parts(), func(p part) bool { return p.name == "entropy" }) {
		t.Error("a simulation seeds the machine's pool")
	}
	s.cfg.Pool = refusingPool{refused}
	if first := s.parts()[0].name; first != "entropy" {
		t.Errorf("%s begins before there are random numbers", first)
	}
	if err := s.beginEntropy(t.Context()); !errors.Is(err, refused) {
		t.Errorf("got %v, want %v", err, refused)
	}
	s.cfg.Pool = refusingPool{}
	if err := s.beginEntropy(t.Context()); err != nil {
		t.Error(err)
	}
}
