package main

import (
	"context"
	"time"

	"github.com/corridor-enclave/corridor/attestation/attestationtest"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// patience bounds every single wait; without KVM things take their time.
const patience = 90 * time.Second

// scenario runs the steps in order. What a later step uses, an earlier one made.
func scenario(ctx context.Context, r *reporter) {
	vsock := vsockconn.Kernel(vsockconn.KernelOptions{})
	c := &corridor{client: newClient()}
	var w *wire
	var module *attestationtest.Module

	r.step("modules", func() (values, error) { return nil, loadModules() })
	r.step("addresses", func() (values, error) {
		if err := addAddress("lo", [4]byte{127, 0, 0, 1}); err != nil {
			return nil, err
		}
		return nil, addAddress("lo:1", [4]byte{203, 0, 113, 10})
	})
	r.step("vsock", func() (values, error) { return echo(ctx, vsock) })
	r.step("vsock on a loop", func() (values, error) { return loops(ctx, vsock) })
	r.step("outside", func() (_ values, err error) {
		if c.origin, err = startOrigin(); err != nil {
			return nil, err
		}
		w, err = newWire(vsock)
		return nil, err
	})

	r.step("host", func() (values, error) { return nil, c.startHost(ctx) })
	r.step("no module", func() (values, error) { return refusesWithoutModule(ctx) })
	r.step("module", func() (_ values, err error) {
		module, err = startModule()
		return nil, err
	})
	r.step("enclave", func() (values, error) { return c.startEnclave(ctx) })
	r.step("request", func() (values, error) { return nil, c.untilAnswered(ctx) })
	r.step("streams", func() (values, error) { return c.streams(ctx) })
	r.step("streams on loops", func() (values, error) { return c.onLoops(ctx) })
	r.step("namespaces", func() (values, error) { return c.apart() })
	r.step("egress", func() (values, error) { return c.fetch(ctx, "/bytes?n=16777216", 16<<20) })
	r.step("proof", func() (values, error) { return c.verified(ctx, module) })
	r.step("cut stream", func() (values, error) { return c.survivesCut(ctx, w) })
	r.step("killed host", func() (values, error) { return c.survivesHost(ctx) })
	r.step("egress again", func() (values, error) { return c.fetch(ctx, "/bytes?n=1048576", 1<<20) })
	r.step("upgrade", func() (values, error) { return c.survivesUpgrade(ctx) })
	r.step("stop", func() (values, error) { return c.stop() })
}
