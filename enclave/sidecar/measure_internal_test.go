package sidecar

import (
	"errors"
	"log/slog"
	"testing"

	"github.com/corridor-enclave/corridor/attestation"
	"github.com/corridor-enclave/corridor/attestation/attestationtest"
	"github.com/corridor-enclave/corridor/attestation/nsm"
	"github.com/corridor-enclave/corridor/enclave/config"
	"github.com/corridor-enclave/corridor/enclave/front"
)

// TestMeasure: the register holds what /enclave/config answers, nobody can extend
// it afterwards, and a second start is content with it where its settings are the
// same, and only there.
func TestMeasure(t *testing.T) {
	t.Parallel()
	s := newTestSidecar(t, "--link", "off", "--fqdn", "a")
	if err := s.measure(t.Context()); err != nil {
		t.Fatal(err)
	}
	published, err := front.Publish(publish(s.cfg.Settings))
	if err != nil {
		t.Fatal(err)
	}
	register, err := s.session.DescribePCR(t.Context(), 16)
	if err != nil || !register.Locked || string(register.Value) != string(attestation.Measure(published)) {
		t.Errorf("PCR16 is %x, locked: %v, %v", register.Value, register.Locked, err)
	}
	if _, err := s.session.ExtendPCR(t.Context(), 16, []byte("the app")); !errors.Is(err, nsm.ReadOnlyIndex) {
		t.Errorf("the app extends it: %v", err)
	}
	before := s.config
	if err := s.measure(t.Context()); err != nil || s.config != before || s.config == (attestation.Digest{}) {
		t.Errorf("a second start: %v, digest %x and %x", err, before, s.config)
	}
	s.cfg.Settings.FQDN = "b"
	if err := s.measure(t.Context()); !errors.Is(err, errOtherConfiguration) {
		t.Errorf("a second start with other settings: %v, want %v", err, errOtherConfiguration)
	}
}

// TestMeasureIsSpoilt: what was put into the register before is not taken for ours.
func TestMeasureIsSpoilt(t *testing.T) {
	t.Parallel()
	s := newTestSidecar(t, "--link", "off", "--fqdn", "a")
	if _, err := s.session.ExtendPCR(t.Context(), 16, []byte("somebody")); err != nil {
		t.Fatal(err)
	}
	if err := s.measure(t.Context()); !errors.Is(err, errOtherConfiguration) || s.config != (attestation.Digest{}) {
		t.Errorf("got %v and %x, want %v", err, s.config, errOtherConfiguration)
	}
	for _, request := range []string{"ExtendPCR", "LockPCR", "DescribePCR"} {
		settings, _, err := config.Parse(config.Simulated, []string{"--link", "off", "--fqdn", "a"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		failing := newSidecar(t, settings, attestationtest.Options{Fail: func(name string) error {
			if name == request {
				return nsm.InternalError
			}
			return nil
		}}, slog.New(slog.DiscardHandler))
		if err := failing.measure(t.Context()); !errors.Is(err, nsm.InternalError) || failing.config != (attestation.Digest{}) {
			t.Errorf("%s fails: got %v", request, err)
		}
	}
}
