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
