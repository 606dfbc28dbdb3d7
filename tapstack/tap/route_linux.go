package tap

import (
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// congestionControl is what TCP keeps to on the link, whatever is usual elsewhere
// in the kernel. The link loses nothing and holds the sender back by itself, so
// there is no bandwidth to guess: one that does, and paces its segments by it, as
// BBR, leaves the link idle half of the time. Reno is in every kernel.
const congestionControl = "reno"

// subnetPriority6 is the metric that the kernel gives to the route of an IPv6
// address's network (IP6_RT_PRIO_ADDRCONF).
const subnetPriority6 = 256

// setDefaultRoute leads everything of the gateway's family to the gateway.
func setDefaultRoute(link netlink.Link, gateway netip.Addr) error {
	everything := net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, ipv4Bits)}
	if gateway.Is6() {
		everything = net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, ipv6Bits)}
	}
	return netlink.RouteReplace(&netlink.Route{
		LinkIndex: link.Attrs().Index,
		Dst:       &everything,
		Gw:        gateway.AsSlice(),
		Congctl:   congestionControl,
	})
}

// setSubnetRoute puts the route to the address's network in the place of the one
// that the kernel made, which is the same but for the congestion control.
func setSubnetRoute(link netlink.Link, addr netip.Prefix) error {
	r := &netlink.Route{
		LinkIndex: link.Attrs().Index,
		Dst:       &net.IPNet{IP: addr.Masked().Addr().AsSlice(), Mask: net.CIDRMask(addr.Bits(), addr.Addr().BitLen())},
		Protocol:  unix.RTPROT_KERNEL,
		Congctl:   congestionControl,
	}
	if addr.Addr().Is4() {
		r.Scope, r.Src = netlink.SCOPE_LINK, addr.Addr().AsSlice()
	} else {
		r.Priority = subnetPriority6
	}
	return netlink.RouteReplace(r)
}
