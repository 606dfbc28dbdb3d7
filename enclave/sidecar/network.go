package sidecar

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"

	"github.com/corridor-enclave/corridor/enclave/resolvconf"
	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/tap"
	"github.com/corridor-enclave/corridor/tapstack/telemetry"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// beginLoopback asks for no privilege if the loopback is up already, as the init
// of some enclave images leaves it.
func beginLoopback(context.Context) error {
	if lo, err := net.InterfaceByName("lo"); err == nil && lo.Flags&net.FlagUp != 0 {
		return nil
	}
	return tap.LoopbackUp()
}

func (s *Sidecar) beginNetwork(context.Context) error {
	l := s.cfg.Settings.Link
	device, err := tap.Open(l.TAP, tap.Options{NoOffload: !l.Offload, Queues: l.Lanes})
	if err != nil {
		return err
	}
	s.device, s.queues = device, device.Further()
	if err := tap.DisableIPv6(l.TAP); err != nil {
		// Some containers keep this from being written. Then the link has IPv4 alone,
		// and an app is not kept from what a host may advertise.
		s.cfg.Log.Warn("IPv6 of the link's device is not under control", "part", "link", "err", err)
	}
	err = tap.Configure(tap.Settings{
		Name: l.TAP, MAC: l.MAC, MTU: l.MTU,
		Addr: netip.PrefixFrom(tapstack.EnclaveAddr(), tapstack.Subnet().Bits()), Gateway: tapstack.GatewayAddr(),
		GatewayMAC: tapstack.GatewayMAC(),
	})
	if err != nil {
		return errors.Join(err, device.Close())
	}
	return nil
}

// endNetwork closes the device if the link never got it: the link closes its own.
func (s *Sidecar) endNetwork() error {
	if err := s.device.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

func (s *Sidecar) beginResolvConf(context.Context) error {
	return resolvconf.Write(s.cfg.Settings.ResolvConf, resolvconf.Config{
		Nameservers: []netip.Addr{tapstack.GatewayAddr()},
	})
}

func (s *Sidecar) beginLink(context.Context) (err error) {
	l := s.cfg.Settings.Link
	log := s.told.With("part", "link", "vsock", s.cfg.Transport.String())
	host := vsockconn.Addr{CID: l.Parent, Port: l.Port}
	s.link, err = tapstack.NewLink(tapstack.LinkConfig{
		Device: s.device, Queues: s.queues,
		Dial: func(ctx context.Context) (net.Conn, error) { return s.cfg.Transport.Dial(ctx, host) },
		MAC:  l.MAC, Plain: l.Plain, WriteMax: l.WriteMax,
		IPv6: tap.HasIPv6() && l.MTU >= minIPv6MTU,
		Up:   followIPv6(l.TAP, log),
		Log:  log.With("host", host.String()),
	})
	if err == nil {
		s.measurements.add(func(vs []telemetry.Value) []telemetry.Value { return linkValues(vs, s.link.Status()) })
	}
	return err
}

// runLink is its own method because the link exists only once it has begun.
func (s *Sidecar) runLink(ctx context.Context) error { return s.link.Run(ctx) }

// minIPv6MTU is the least that IPv6 needs (RFC 8200, section 5).
const minIPv6MTU = 1280

// followIPv6 gives the device IPv6 when the host has it, and takes it away when
// the host that the link came up with has none, so that no app waits for nothing.
func followIPv6(device string, log *slog.Logger) func(tapstack.Capabilities) {
	on := false // as DisableIPv6 left it
	return func(host tapstack.Capabilities) {
		if host.IPv6 == on {
			return
		}
		change := func() error { return tap.DisableIPv6(device) }
		if host.IPv6 {
			change = func() error { return tap.EnableIPv6(device, tapstack.GatewayMAC()) }
		}
		if err := change(); err != nil {
			log.Warn("IPv6 of the link's device stays as it was", "wanted", host.IPv6, "err", err)
			return
		}
		on = host.IPv6
		log.Info("IPv6 on the link", "on", on)
	}
}
