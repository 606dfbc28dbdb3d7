package main

import (
	"context"
	"log/slog"

	"github.com/corridor-enclave/corridor/host/config"
	"github.com/corridor-enclave/corridor/host/credentials"
	"github.com/corridor-enclave/corridor/host/egress"
	"github.com/corridor-enclave/corridor/host/gateway"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// listenCalls opens the port that enclaves call the outside on; nil if there is
// to be none.
func listenCalls(c config.Config, g *gateway.Gateway, log *slog.Logger) (*egress.Server, error) {
	if c.EgressPort == 0 {
		return nil, nil
	}
	l, err := c.Transport.Listen(c.EgressPort)
	if err != nil {
		return nil, err
	}
	return egress.New(egress.Config{
		Listener: l,
		Outside:  func(ctx context.Context, cid vsockconn.CID) egress.Outside { return g.Outside(ctx, cid) },
		Log:      log,
	}), nil
}

// countCalls is for metrics.
func (h *host) countCalls() egress.Counts {
	if h.calls == nil {
		return egress.Counts{}
	}
	return h.calls.Counts()
}

// listenRole opens the port on which enclaves are told the credentials of this
// instance's role; nil if there is to be none.
func listenRole(c config.Config, log *slog.Logger) (*credentials.Server, error) {
	if c.Credentials == 0 {
		return nil, nil
	}
	l, err := c.Transport.Listen(c.Credentials)
	if err != nil {
		return nil, err
	}
	return credentials.New(credentials.Config{Listener: l, Service: c.Metadata, Log: log}), nil
}

// countRole is for metrics.
func (h *host) countRole() credentials.Counts {
	if h.role == nil {
		return credentials.Counts{}
	}
	return h.role.Counts()
}
