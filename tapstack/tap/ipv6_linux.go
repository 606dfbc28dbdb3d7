package tap

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/corridor-enclave/corridor/tapstack"
)

// ipv6Settings is where the kernel keeps what it does with IPv6 on each device of
// the caller's network namespace; it is missing in a kernel without IPv6.
const ipv6Settings = "/proc/sys/net/ipv6/conf"

// Bits of IPv6 addresses, and of the link's network.
const (
	ipv6Bits   = 128
	subnetBits = 64
)

func hasIPv6() bool {
	_, err := os.Stat(ipv6Settings)
	return err == nil
}

func disableIPv6(name string) error {
	if !hasIPv6() {
		return nil
	}
	return explainUnless(name, "switch IPv6 off", setIPv6(name, "disable_ipv6", "1"))
}

func enableIPv6(name string, gatewayMAC net.HardwareAddr) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return explainConfigure(name, "find the device", err)
	}
	steps := []struct {
		doing string
		do    func() error
	}{
		{"take no routes and addresses from others", func() error { return trustNobody(name) }},
		{"switch IPv6 on", func() error { return setIPv6(name, "disable_ipv6", "0") }},
		{"give it " + tapstack.EnclaveAddr6().String(), func() error {
			// There is nobody else who could have it: no detection of duplicates.
			return netlink.AddrReplace(link, &netlink.Addr{
				Flags: unix.IFA_F_NODAD,
				IPNet: &net.IPNet{IP: tapstack.EnclaveAddr6().AsSlice(), Mask: net.CIDRMask(subnetBits, ipv6Bits)},
			})
		}},
		{"enter the gateway's MAC", func() error { return setNeighbour(link, tapstack.GatewayAddr6(), gatewayMAC) }},
		{"route to its network", func() error {
			return setSubnetRoute(link, netip.PrefixFrom(tapstack.EnclaveAddr6(), subnetBits))
		}},
		{"route IPv6 by " + tapstack.GatewayAddr6().String(), func() error { return setDefaultRoute(link, tapstack.GatewayAddr6()) }},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			return explainConfigure(name, step.doing, err)
		}
	}
	return nil
}

// trustNobody keeps the other end of the link from changing routes, and the kernel
// from making addresses up.
func trustNobody(name string) error {
	return errors.Join(
		setIPv6(name, "accept_ra", "0"),
		setIPv6(name, "accept_redirects", "0"),
		setIPv6(name, "autoconf", "0"),
		setIPv6(name, "addr_gen_mode", "1"),
	)
}

func setIPv6(name, key, value string) error {
	return os.WriteFile(filepath.Join(ipv6Settings, name, key), []byte(value), 0)
}

func explainUnless(name, doing string, err error) error {
	if err == nil {
		return nil
	}
	return explainConfigure(name, doing, err)
}
