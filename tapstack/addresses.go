// Package tapstack carries Ethernet frames between an enclave and its host over
// one byte stream. It does not open that stream (vsockconn and simvsock do),
// does not talk to the kernel's TAP driver (tap does) and runs no TCP/IP stack
// (netstack does).
package tapstack

import (
	"net"
	"net/netip"
)

// The numbers of the link. They are those of gvproxy and of nitriding, so that
// either end can meet a stock peer.
const (
	// LinkPort is the VSOCK port on which the host accepts the link.
	LinkPort = 1024
	// ConnectPath is the path of the HTTP POST that opens the link.
	ConnectPath = "/connect"
	// DefaultMTU is the payload limit of a frame, without its 14-byte Ethernet
	// header, where nothing else was agreed.
	DefaultMTU = 1500
)

// Subnet is the network on the link: 192.168.127.0/24.
func Subnet() netip.Prefix { return netip.PrefixFrom(linkAddr(0), 24) }

// GatewayAddr is the host's address on the link, 192.168.127.1. It routes,
// answers DNS on port 53 and gvproxy's HTTP API on port 80.
func GatewayAddr() netip.Addr { return linkAddr(1) }

// EnclaveAddr is the enclave's address on the link, 192.168.127.2.
func EnclaveAddr() netip.Addr { return linkAddr(2) }

// HostAliasAddr is the address on the link that stands for the host's own
// loopback, 192.168.127.254.
func HostAliasAddr() netip.Addr { return linkAddr(254) }

// Subnet6 is the network on the link for IPv6, where both ends have it:
// fd3c:91d2:7ab4::/64, unique local addresses with a random prefix (RFC 4193).
func Subnet6() netip.Prefix { return netip.PrefixFrom(linkAddr6(0), 64) }

// GatewayAddr6 is the host's IPv6 address on the link, fd3c:91d2:7ab4::1. It
// routes and answers neighbour discovery; DNS is on GatewayAddr alone.
func GatewayAddr6() netip.Addr { return linkAddr6(1) }

// EnclaveAddr6 is the enclave's IPv6 address on the link, fd3c:91d2:7ab4::2.
func EnclaveAddr6() netip.Addr { return linkAddr6(2) }

// GatewayMAC is the gateway's hardware address, 5a:94:ef:e4:0c:dd. The caller
// owns the returned slice.
func GatewayMAC() net.HardwareAddr {
	mac := gatewayMAC()
	return mac[:]
}

func gatewayMAC() [macLen]byte { return [macLen]byte{0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xdd} }

// EnclaveMAC is the enclave's hardware address where none is configured,
// ba:aa:ad:c0:ff:ee. The caller owns the returned slice.
func EnclaveMAC() net.HardwareAddr {
	return net.HardwareAddr{0xba, 0xaa, 0xad, 0xc0, 0xff, 0xee}
}

func linkAddr(host byte) netip.Addr {
	return netip.AddrFrom4([4]byte{192, 168, 127, host})
}

func linkAddr6(host byte) netip.Addr {
	return netip.AddrFrom16([16]byte{0xfd, 0x3c, 0x91, 0xd2, 0x7a, 0xb4, 15: host})
}
