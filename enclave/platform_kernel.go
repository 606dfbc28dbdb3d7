//go:build !sim

package main

import (
	"context"
	"log/slog"

	"github.com/corridor-enclave/corridor/attestation/nsm"
	"github.com/corridor-enclave/corridor/enclave/config"
	"github.com/corridor-enclave/corridor/enclave/sidecar"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// build makes this the binary for real enclaves: its settings know no simulation,
// and neither does anything that it links.
const build = config.Production

// isolated has nothing to do: an enclave is isolated.
func isolated(config.Config, []string) (inside bool, code int, err error) { return true, 0, nil }

// ownNetwork is true: nobody but the app shares an enclave's network.
func ownNetwork(config.Config) bool { return true }

// entropyPool is the kernel's.
func entropyPool() nsm.Pool { return nsm.KernelPool() }

func newTransport(cfg config.Config) (vsockconn.Transport, error) {
	return vsockconn.Limited(vsockconn.Kernel(vsockconn.KernelOptions{}), cfg.Link.WriteMax), nil
}

// observed is for simulations: nobody inside of a real enclave measures it.
func observed(config.Config, *sidecar.Sidecar) (stop func(), err error) { return func() {}, nil }

// openModule opens /dev/nsm, and refuses to go on where clients could prove
// nothing: better no enclave than one that is taken for more than it is.
func openModule(config.Config, *slog.Logger) (nsm.Module, error) {
	m, err := nsm.Open()
	if err != nil {
		return nil, err
	}
	if err := nsm.CheckMeasured(context.Background(), m); err != nil { // bounded by nsm.RequestTimeout
		_ = m.Close()
		return nil, err
	}
	return m, nil
}
