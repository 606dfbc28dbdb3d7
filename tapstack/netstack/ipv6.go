package netstack

import (
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/corridor-enclave/corridor/tapstack"
)

// Offsets into an Ethernet frame that holds IPv6 (RFC 8200, section 3).
const (
	ipv6Next   = payload + 6
	ipv6Source = payload + 8
	ipv6Target = payload + 24
	ipv6End    = payload + header.IPv6MinimumSize
	// fragmentNext is where a fragment header, right behind, says what it carries.
	fragmentNext = ipv6End
	fragmentEnd  = ipv6End + header.IPv6FragmentHeaderSize
	ipv6Len      = header.IPv6AddressSize
)

// newIPv6 is the protocol without anything that happens by itself: the stack
// neither solicits routers nor believes advertisements, makes up no addresses and
// joins no groups. It answers solicitations for the gateway's address.
func newIPv6(s *stack.Stack) stack.NetworkProtocol {
	return ipv6.NewProtocolWithOptions(ipv6.Options{})(s)
}

// gatewayAddress6 is the gateway's address for IPv6.
func gatewayAddress6() tcpip.ProtocolAddress {
	return tcpip.ProtocolAddress{
		Protocol: ipv6.ProtocolNumber,
		AddressWithPrefix: tcpip.AddressWithPrefix{
			Address:   stackAddr(tapstack.GatewayAddr6()),
			PrefixLen: tapstack.Subnet6().Bits(),
		},
	}
}

// CarriesIPv6 reports whether the stream that is attached, or was last, carries
// IPv6.
func (s *Stack) CarriesIPv6() bool { return s.ipv6.Load() }

// inputIPv6 takes TCP and UDP to everybody, and ICMPv6, with neighbour discovery,
// to the gateway alone, but for echo requests that somebody handles: the stack by
// itself would answer in the name of any machine. Other headers, which could hide ICMPv6, are dropped.
func (s *Stack) inputIPv6(frame []byte) {
	if !s.ipv6.Load() {
		s.counts.dropProtocol.Add(1)
		return
	}
	if len(frame) < ipv6End {
		s.counts.dropMalformed.Add(1)
		return
	}
	next := frame[ipv6Next]
	if next == uint8(header.IPv6FragmentExtHdrIdentifier) {
		if len(frame) < fragmentEnd {
			s.counts.dropMalformed.Add(1)
			return
		}
		next = frame[fragmentNext]
	}
	switch tcpip.TransportProtocolNumber(next) {
	case header.TCPProtocolNumber, header.UDPProtocolNumber:
	case header.ICMPv6ProtocolNumber:
		if !forGateway6(ipv6At(frame, ipv6Target)) && !s.takesEcho6(frame) {
			s.counts.dropNotForGateway.Add(1)
			return
		}
	default:
		s.counts.dropProtocol.Add(1)
		return
	}
	s.learn(frame, ipv6At(frame, ipv6Source))
	s.deliver(ipv6.ProtocolNumber, frame)
}

// forGateway6 reports whether the address is the gateway's, or that of the group
// in which its solicitations arrive.
func forGateway6(addr netip.Addr) bool {
	gateway := tapstack.GatewayAddr6()
	group := header.SolicitedNodeAddr(stackAddr(gateway))
	return addr == gateway || addr == netip.AddrFrom16(group.As16())
}

// ipv6At reads an address; the caller has checked that it is there.
func ipv6At(frame []byte, at int) netip.Addr {
	return netip.AddrFrom16([16]byte(frame[at : at+ipv6Len]))
}

// networkOf is the protocol that an address belongs to.
func networkOf(addr netip.Addr) tcpip.NetworkProtocolNumber {
	if addr.Is6() {
		return ipv6.ProtocolNumber
	}
	return header.IPv4ProtocolNumber
}
