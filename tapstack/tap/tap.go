// Package tap opens and configures the TAP device through which the enclave's
// kernel sends and receives Ethernet frames. It moves single frames; tapstack
// carries them to the host.
package tap

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/corridor-enclave/corridor/tapstack"
)

// maxName is the longest name of a network interface (IFNAMSIZ without its
// final zero).
const maxName = 15

// Settings is how Configure leaves the device.
type Settings struct {
	// Name of the device, as given to Open.
	Name string
	// MAC is the device's hardware address; nil leaves it.
	MAC net.HardwareAddr
	// MTU is the largest IP packet, at most 65521; 0 is tapstack.DefaultMTU.
	MTU int
	// Addr is the IPv4 address with the length of the network's prefix; the
	// zero value is the enclave's on the link, in the link's subnet.
	Addr netip.Prefix
	// Gateway is where the default route leads; the zero value is the gateway
	// of the link.
	Gateway netip.Addr
	// GatewayMAC is entered as the gateway's for good, which saves asking for it
	// and cannot be changed by what comes over the link; nil leaves it to ARP.
	GatewayMAC net.HardwareAddr
	// QueueLength is how many frames wait in the kernel while nobody reads the
	// device; 0 leaves the kernel's own, 1000.
	QueueLength int
}

// validate fills the defaults in and reports every mistake at once.
func (s *Settings) validate() error {
	if s.MTU == 0 {
		s.MTU = tapstack.DefaultMTU
	}
	if !s.Addr.IsValid() {
		s.Addr = netip.PrefixFrom(tapstack.EnclaveAddr(), tapstack.Subnet().Bits())
	}
	if !s.Gateway.IsValid() {
		s.Gateway = tapstack.GatewayAddr()
	}
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if err := checkName(s.Name); err != nil {
		errs = append(errs, err)
	}
	if limit := tapstack.MaxFrame - tapstack.MinFrame; s.MTU < 68 || s.MTU > limit {
		bad("MTU %d is outside 68 to %d", s.MTU, limit) // 68: RFC 791, section 3.2
	}
	if !s.Addr.Addr().Is4() || !s.Gateway.Is4() {
		bad("address %s and gateway %s must be IPv4", s.Addr, s.Gateway)
	} else if !s.Addr.Contains(s.Gateway) || s.Addr.Addr() == s.Gateway {
		bad("gateway %s is not another address of %s", s.Gateway, s.Addr.Masked())
	}
	for _, mac := range []net.HardwareAddr{s.MAC, s.GatewayMAC} {
		if mac != nil && len(mac) != 6 {
			bad("MAC %s has %d bytes, not 6", mac, len(mac))
		} else if mac != nil && mac[0]&1 != 0 {
			bad("MAC %s is a group's, not one device's", mac)
		}
	}
	if s.QueueLength < 0 {
		bad("queue length %d is negative", s.QueueLength)
	}
	return errors.Join(errs...)
}

// checkName reports a name that the kernel would refuse, or take for a pattern.
func checkName(name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("device name %q must have 1 to %d bytes", name, maxName)
	}
	for _, c := range []byte(name) {
		if c <= ' ' || c > '~' || c == '/' || c == ':' || c == '%' {
			return fmt.Errorf("device name %q has the byte %q in it", name, c)
		}
	}
	return nil
}

// Options is how Open makes the device.
type Options struct {
	// NoOffload keeps the kernel's work in the kernel: frames that it sends are
	// within the MTU and have complete checksums, and Offloads reports false.
	NoOffload bool
	// Queues is how many queues the device has, at most tapstack.MaxLanes; 0 is one.
	Queues int
}

// Open makes the TAP device of that name, or attaches to it if it exists and
// nobody else has. It needs CAP_NET_ADMIN and /dev/net/tun, and its error says
// which is missing; it wraps the errno. The device disappears with Close unless
// it was made persistent by others. A fresh device is down: see Configure.
//
// Of a device with several queues the result is the first, and Further has the
// others. The kernel sends a flow to the queue that brought something of it last, in
// the last 3 seconds, and spreads others (Linux: drivers/net/tun.c,
// tun_automq_select_queue).
func Open(name string, o Options) (*Device, error) {
	if err := checkName(name); err != nil {
		return nil, fmt.Errorf("tap: open: %w", err)
	}
	if o.Queues < 0 || o.Queues > tapstack.MaxLanes {
		return nil, fmt.Errorf("tap: open %s: %d queues, the most are %d", name, o.Queues, tapstack.MaxLanes)
	}
	d, err := open(name, o)
	for err == nil && len(d.Further())+1 < o.Queues {
		err = d.addQueue(o)
	}
	if err != nil && d != nil {
		err = errors.Join(err, d.Close())
	}
	if err != nil {
		return nil, err
	}
	return d, nil
}

// Configure gives the device its addresses, brings it up and routes everything
// through the gateway. TCP on these routes uses Reno, which does not pace. It may be repeated, and changes only what differs; it
// removes nothing. It needs CAP_NET_ADMIN.
func Configure(s Settings) error {
	if err := s.validate(); err != nil {
		return fmt.Errorf("tap: configure: %w", err)
	}
	return configure(s)
}

// HasIPv6 reports whether the kernel has IPv6.
func HasIPv6() bool { return hasIPv6() }

// DisableIPv6 takes IPv6 off the device, with its addresses and routes. It belongs
// before Configure, which brings the device up: with IPv6 on, a kernel gives it
// addresses by itself and believes what the other end advertises. It does nothing
// where the kernel has no IPv6.
func DisableIPv6(name string) error {
	if err := checkName(name); err != nil {
		return fmt.Errorf("tap: switch IPv6 off: %w", err)
	}
	return disableIPv6(name)
}

// EnableIPv6 gives the device, which Configure has brought up, the enclave's IPv6
// address on the link, and routes IPv6 through the gateway, whose hardware address
// is entered for good. Nothing that the other end advertises changes that. It may
// be repeated.
func EnableIPv6(name string, gatewayMAC net.HardwareAddr) error {
	if err := checkName(name); err != nil {
		return fmt.Errorf("tap: switch IPv6 on: %w", err)
	}
	return enableIPv6(name, gatewayMAC)
}

// LoopbackUp brings the interface lo up, which is down in a fresh network
// namespace and in an enclave. It may be repeated.
func LoopbackUp() error { return loopbackUp() }
