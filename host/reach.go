package main

import (
	"context"
	"net"

	"github.com/corridor-enclave/corridor/host/balance"
	"github.com/corridor-enclave/corridor/host/config"
	"github.com/corridor-enclave/corridor/host/gateway"
	"github.com/corridor-enclave/corridor/host/publish"
	"github.com/corridor-enclave/corridor/tapstack/stream"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// dialLink brings a client in by the link of its enclave.
func (h *host) dialLink(ctx context.Context, c publish.Call) (net.Conn, error) {
	if !c.Wait && !h.gateway.Attached(c.CID) {
		return nil, gateway.ErrAbsent
	}
	return h.gateway.Dial(ctx, c.Client, c.CID, uint16(c.To.Port))
}

// dialStream brings a client in by a stream.
func (h *host) dialStream(ctx context.Context, c publish.Call) (net.Conn, error) {
	to := vsockconn.Addr{CID: c.CID, Port: c.To.Port}
	opening := stream.Opening{Client: c.Client, Local: c.Local, Service: c.To.Local, ID: c.ID}
	if c.Wait {
		return h.streams.Dial(ctx, to, opening)
	}
	return h.streams.Try(ctx, to, opening)
}

// check asks an enclave for its health, by a stream on which the host speaks for
// itself.
func (h *host) check(ctx context.Context, cid vsockconn.CID) error {
	how := h.health.Load()
	conn, err := h.streams.Try(ctx, vsockconn.Addr{CID: cid, Port: how.Port}, stream.Opening{Service: "health"})
	if err != nil {
		return err
	}
	return balance.AskHealth(ctx, conn, how.Secure)
}

// balance puts into effect what the configuration says about sharing clients.
func (h *host) balance(c config.Config) {
	e := c.Enclaves
	h.health.Store(&e.Check)
	p := balance.Policy{Drained: e.Drained, Rise: e.Rise, Fall: e.Fall, SlowStart: e.SlowStart}
	if e.Check.Port != 0 {
		p.Watched, p.Interval = config.Shared(c.Publish), e.Interval
	}
	h.balancer.Apply(p)
}

// tuningOf is what the publisher may be told again later.
func tuningOf(c config.Config) publish.Tuning {
	return publish.Tuning{IdleTimeout: c.Published.IdleTimeout, Limits: c.Published.Limits, DrainTimeout: c.DrainTimeout}
}
