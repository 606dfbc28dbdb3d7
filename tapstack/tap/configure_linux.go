package tap

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// bits of an IPv4 address.
const ipv4Bits = 32

func configure(s Settings) error {
	link, err := netlink.LinkByName(s.Name)
	if err != nil {
		return explainConfigure(s.Name, "find the device", err)
	}
	// The order matters: a route needs its device up and its gateway reachable,
	// and a packet must not leave before the MAC and the MTU are right.
	steps := []struct {
		doing string
		do    func() error
	}{
		{"set its MAC", func() error { return setMAC(link, s.MAC) }},
		{"set its MTU", func() error { return netlink.LinkSetMTU(link, s.MTU) }},
		{"set its queue length", func() error { return setQueueLength(link, s.QueueLength) }},
		{"give it " + s.Addr.String(), func() error { return netlink.AddrReplace(link, &netlink.Addr{IPNet: ipNet(s.Addr)}) }},
		{"bring it up", func() error { return netlink.LinkSetUp(link) }},
		{"enter the gateway's MAC", func() error { return setNeighbour(link, s.Gateway, s.GatewayMAC) }},
		{"route to " + s.Addr.Masked().String(), func() error { return setSubnetRoute(link, s.Addr) }},
		{"route by " + s.Gateway.String(), func() error { return setDefaultRoute(link, s.Gateway) }},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			return explainConfigure(s.Name, step.doing, err)
		}
	}
	return nil
}

func setMAC(link netlink.Link, mac net.HardwareAddr) error {
	if mac == nil {
		return nil
	}
	return netlink.LinkSetHardwareAddr(link, mac)
}

func setQueueLength(link netlink.Link, length int) error {
	if length == 0 {
		return nil
	}
	return netlink.LinkSetTxQLen(link, length)
}

func setNeighbour(link netlink.Link, addr netip.Addr, mac net.HardwareAddr) error {
	if mac == nil {
		return nil
	}
	family := netlink.FAMILY_V4
	if addr.Is6() {
		family = netlink.FAMILY_V6
	}
	return netlink.NeighSet(&netlink.Neigh{
		LinkIndex:    link.Attrs().Index,
		Family:       family,
		State:        netlink.NUD_PERMANENT,
		IP:           addr.AsSlice(),
		HardwareAddr: mac,
	})
}

func loopbackUp() error {
	link, err := netlink.LinkByName("lo")
	if err != nil {
		return explainConfigure("lo", "find the device", err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return explainConfigure("lo", "bring it up", err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), ipv4Bits)}
}

// explainConfigure says what failed, and what to do where the errno tells. The
// result wraps the errno.
func explainConfigure(name, doing string, err error) error {
	hint := ""
	var missing netlink.LinkNotFoundError
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		hint = "not permitted (run with CAP_NET_ADMIN): "
	case errors.As(err, &missing):
		hint = "there is none in this network namespace: "
		err = os.ErrNotExist
	}
	return fmt.Errorf("tap: configure %s: %s: %s%w", name, doing, hint, err)
}
