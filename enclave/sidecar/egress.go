package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/corridor-enclave/corridor/enclave/config"
	"github.com/corridor-enclave/corridor/enclave/egress"
	"github.com/corridor-enclave/corridor/enclave/egressproxy"
	"github.com/corridor-enclave/corridor/tapstack/telemetry"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// beginEgress takes the addresses before the app is started, which is told of
// them.
func (s *Sidecar) beginEgress(ctx context.Context) error {
	set := s.cfg.Settings.Egress
	s.outward = egress.New(egress.Config{Policy: set.Policy, Call: s.caller(), Log: s.cfg.Log})
	s.measurements.add(func(vs []telemetry.Value) []telemetry.Value { return egressValues(vs, s.outward.Counts()) })
	for _, l := range []struct {
		setting, address string
		server           func(net.Listener, *egress.Dialer, *slog.Logger) *egress.Server
	}{{"socks", set.SOCKS, egress.NewSOCKS}, {"http-connect", set.Connect, egress.NewCONNECT}} {
		if l.address == "" {
			continue
		}
		listener, err := listen(ctx, config.Endpoint{Network: "tcp", Address: l.address})
		if err != nil {
			return errors.Join(fmt.Errorf("--%s %s: %w", l.setting, l.address, explain(err)), closeAll(s.ways))
		}
		s.ways = append(s.ways, listener)
		s.outwardServers = append(s.outwardServers, l.server(listener, s.outward, s.cfg.Log).Run)
	}
	if set.Proxy == "" {
		return nil
	}
	if err := s.beginEgressProxy(ctx); err != nil {
		return errors.Join(err, closeAll(s.ways))
	}
	return nil
}

func (s *Sidecar) beginEgressProxy(ctx context.Context) error {
	set := s.cfg.Settings.Egress
	roots, err := egressproxy.Roots(set.Roots)
	if err != nil {
		return fmt.Errorf("--egress-proxy %s: %w", set.Proxy, err)
	}
	p, err := egressproxy.New(egressproxy.Config{
		Policy: set.Policy, Dial: s.outward.DialContext, Roots: roots, Suffix: set.Suffix, Log: s.cfg.Log,
	})
	if err != nil {
		return err
	}
	l, err := listen(ctx, config.Endpoint{Network: "tcp", Address: set.Proxy})
	if err != nil {
		return fmt.Errorf("--egress-proxy %s: %w", set.Proxy, explain(err))
	}
	s.ways = append(s.ways, l)
	s.outwardServers = append(s.outwardServers, func(ctx context.Context) error { return p.Run(ctx, l) })
	return nil
}

func egressValues(vs []telemetry.Value, c egress.Counts) []telemetry.Value {
	return append(vs,
		telemetry.Value{Metric: telemetry.EgressOpen, Value: uint64(max(c.Open, 0))},
		telemetry.Value{Metric: telemetry.EgressConnected, Value: c.Connected},
		telemetry.Value{Metric: telemetry.EgressDenied, Value: c.Denied},
		telemetry.Value{Metric: telemetry.EgressCrowded, Value: c.Crowded},
		telemetry.Value{Metric: telemetry.EgressFailed, Value: c.Failed},
	)
}

// caller opens streams to the host; nil if the way out is the link.
func (s *Sidecar) caller() func(context.Context) (net.Conn, error) {
	if s.cfg.Settings.Egress.ByLink {
		return nil
	}
	host := vsockconn.Addr{CID: s.cfg.Settings.Link.Parent, Port: s.cfg.Settings.Egress.Port}
	return func(ctx context.Context) (net.Conn, error) { return s.cfg.Transport.Dial(ctx, host) }
}

// runEgress serves the app until it is gone, and then ends what is left.
func (s *Sidecar) runEgress(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		<-ctx.Done() // also where nothing is served, and only secrets come this way
		return nil
	})
	for _, run := range s.outwardServers {
		g.Go(func() error { return run(ctx) })
	}
	return g.Wait()
}

// endEgress closes listeners that no server got; servers close their own.
func (s *Sidecar) endEgress() error {
	err := closeAll(s.ways)
	s.outward.Wait()
	return err
}

// appEnviron tells the app where the way out is, by the variables that most HTTP
// libraries know. Those that are set already were set by somebody who knows
// better.
func appEnviron(environ []string, e config.Egress) []string {
	var more []string
	add := func(name, value string) {
		for _, n := range []string{name, strings.ToLower(name)} {
			if !isSet(environ, n) {
				more = append(more, n+"="+value)
			}
		}
	}
	if e.SOCKS != "" {
		add("ALL_PROXY", "socks5h://"+e.SOCKS) // h: the name is resolved outside
	}
	if e.Connect != "" {
		add("HTTPS_PROXY", "http://"+e.Connect)
	}
	if len(more) > 0 {
		add("NO_PROXY", "localhost,127.0.0.1,::1")
	}
	return append(environ[:len(environ):len(environ)], more...)
}

func isSet(environ []string, name string) bool {
	for _, kv := range environ {
		if strings.HasPrefix(kv, name+"=") {
			return true
		}
	}
	return false
}
