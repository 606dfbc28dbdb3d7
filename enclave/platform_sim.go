//go:build sim

package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/pprof"

	"github.com/corridor-enclave/corridor/attestation/attestationtest"
	"github.com/corridor-enclave/corridor/attestation/nsm"
	"github.com/corridor-enclave/corridor/enclave/config"
	"github.com/corridor-enclave/corridor/enclave/isolate"
	"github.com/corridor-enclave/corridor/enclave/sidecar"
	"github.com/corridor-enclave/corridor/tapstack/exposition"
	"github.com/corridor-enclave/corridor/tapstack/simvsock"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// build makes this enclave-sim.
const build = config.Simulated

// isolated enters a network namespace if asked to. It returns inside = false with
// the exit code of the simulation when that has run elsewhere and ended.
func isolated(cfg config.Config, args []string) (inside bool, code int, err error) {
	if !cfg.Simulation.Isolate {
		return true, 0, nil
	}
	return isolate.Enter(isolate.Options{Args: args, Environ: os.Environ(), ResolvConf: cfg.ResolvConf})
}

// ownNetwork is true only in a namespace of our own: the machine's loopback is
// the machine's.
func ownNetwork(cfg config.Config) bool { return cfg.Simulation.Isolate }

func newTransport(cfg config.Config) (vsockconn.Transport, error) {
	t, err := simvsock.Parse(cfg.Link.VSOCK, cfg.Simulation.CID)
	if err != nil {
		return nil, err
	}
	return vsockconn.Limited(t, cfg.Link.WriteMax), nil
}

// entropyPool is nothing: the machine's random numbers are none of a simulation's,
// and a simulated module's can be guessed.
func entropyPool() nsm.Pool { return nil }

// openModule makes the simulated module and writes down what a verifier needs to
// accept it.
func openModule(cfg config.Config, _ *slog.Logger) (nsm.Module, error) {
	m, err := attestationtest.NewModule(attestationtest.Options{Seed: cfg.Simulation.NSMSeed, Debug: cfg.Simulation.NSMDebug, Latency: cfg.Simulation.NSMLatency})
	if err != nil {
		return nil, err
	}
	if dir := cfg.Simulation.NSMOut; dir != "" {
		if err := writeTrust(dir, m); err != nil {
			return nil, fmt.Errorf("--nsm-out: %w", err)
		}
	}
	return m, nil
}

// observed has the process tell what it takes, and where its time goes, if that was
// asked for, until stop is called. Measurements want to know; a real enclave tells its
// host nothing so exact.
func observed(cfg config.Config, s *sidecar.Sidecar) (stop func(), err error) {
	profiled, err := profile(cfg.Simulation.CPUProfile)
	if err != nil {
		return nil, err
	}
	told, err := exposition.ServeProcess(cfg.Simulation.Metrics, s.WriteMetrics)
	if err != nil {
		profiled()
		return nil, fmt.Errorf("--metrics: %w", err)
	}
	return func() { told(); profiled() }, nil
}

// profile writes a CPU profile to a file. Its end is written by stop; a file that
// cannot take it is cut short, which whoever reads it sees.
func profile(path string) (stop func(), err error) {
	if path == "" {
		return func() {}, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("--cpu-profile: %w", err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("--cpu-profile: %w", err)
	}
	return func() { pprof.StopCPUProfile(); _ = f.Close() }, nil
}

func writeTrust(dir string, m *attestationtest.Module) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "root.pem"), m.RootPEM(), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "policy.toml"), m.PolicyTOML(), 0o644)
}
