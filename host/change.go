package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/corridor-enclave/corridor/host/config"
	"github.com/corridor-enclave/corridor/host/gateway"
	"github.com/corridor-enclave/corridor/host/publish"
	"github.com/corridor-enclave/corridor/host/running"
)

// A prepared change has its ports open.
type prepared struct {
	*publish.Change
	host *host
	next config.Config
}

// prepare does what can fail of putting a configuration into force.
func (h *host) prepare(next config.Config) (running.Prepared, error) {
	ports, err := h.publisher.Prepare(next.Publish)
	if err != nil {
		return nil, err
	}
	return &prepared{ports, h, next}, nil
}

// Commit puts the configuration into force: what decides about clients first, the
// ports that bring them last.
func (p *prepared) Commit() error {
	h, c := p.host, p.next
	h.level.Set(c.LogLevel)
	h.linkAPI.Store(c.LinkAPI)
	h.publisher.Tune(tuningOf(c))
	h.streams.SetReady(c.Published.Ready)
	h.balance(c)
	h.gateway.SetRules(gateway.Rules{HostLoopback: c.HostLoopback, Egress: c.Egress, DNS: c.DNS})
	return p.Change.Commit()
}

// heedSignals reads the file again on SIGHUP, and hands over to a new process on
// SIGUSR2, until ctx ends. Whether that worked has been logged and counted.
func (h *host) heedSignals(ctx context.Context) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGUSR2)
	defer signal.Stop(signals)
	for {
		select {
		case s := <-signals:
			if s == syscall.SIGUSR2 {
				_, _ = h.upgrade(ctx)
				continue
			}
			if _, err := h.running.Reload(running.Request{By: "SIGHUP"}); err == running.ErrNoFile {
				h.log.Warn("SIGHUP has no effect", "err", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}
