package sidecar

import (
	"log/slog"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/corridor-enclave/corridor/attestation/attestationtest"
	"github.com/corridor-enclave/corridor/enclave/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newTestSidecar builds a simulated enclave from a command line.
func newTestSidecar(t *testing.T, args ...string) *Sidecar {
	t.Helper()
	settings, _, err := config.Parse(config.Simulated, args, nil)
	if err != nil {
		t.Fatal(err)
	}
	return newSidecar(t, settings, attestationtest.Options{Seed: t.Name()}, slog.New(slog.DiscardHandler))
}

func newSidecar(t *testing.T, settings config.Config, o attestationtest.Options, log *slog.Logger) *Sidecar {
	t.Helper()
	module, err := attestationtest.NewModule(o)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Settings: settings, Module: module, Now: time.Now, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	return s
}
