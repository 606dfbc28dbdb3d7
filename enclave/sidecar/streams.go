package sidecar

import (
	"context"
	"fmt"
	"net"

	"github.com/corridor-enclave/corridor/enclave/config"
	"github.com/corridor-enclave/corridor/enclave/inbound"
)

// listenFront opens one address of the front: of TCP, or of streams, whose
// connections have their clients' addresses like all others.
func (s *Sidecar) listenFront(ctx context.Context, e config.Endpoint) (net.Listener, error) {
	port := e.VSOCKPort()
	if port == 0 {
		return listen(ctx, e)
	}
	cfg, err := s.listenStreams(port)
	if err != nil {
		return nil, err
	}
	l := inbound.Listen(cfg)
	s.inbound = append(s.inbound, l)
	return l, nil
}

// beginForwarders opens the ports of --stream. What was opened is closed by
// endListeners.
func (s *Sidecar) beginForwarders() error {
	for _, f := range s.cfg.Settings.Streams {
		cfg, err := s.listenStreams(f.Port)
		if err != nil {
			return fmt.Errorf("--stream %d=%s: %w", f.Port, f.App, err)
		}
		s.forwarders = append(s.forwarders, inbound.NewForwarder(inbound.ForwardConfig{
			Config: cfg, Network: f.App.Network, Address: f.App.Address, DrainTimeout: s.frontTimeout(),
		}))
	}
	return nil
}

// listenStreams opens a VSOCK port for the parent alone.
func (s *Sidecar) listenStreams(port uint32) (inbound.Config, error) {
	l, err := s.cfg.Transport.Listen(port)
	if err != nil {
		return inbound.Config{}, err
	}
	return inbound.Config{Listener: l, Parent: s.cfg.Settings.Link.Parent, Log: s.cfg.Log}, nil
}
