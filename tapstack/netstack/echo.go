package netstack

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"

	"github.com/corridor-enclave/corridor/tapstack"
)

const (
	// echoHeader is what an echo message has in front of its payload, in both
	// versions of ICMP (RFC 792, RFC 4443).
	echoHeader = 8
	// echoTTL is how far what the stack sends by itself may travel; the way to the
	// enclave has no hop.
	echoTTL = 64
)

// An Echo is an echo request (ping) of the enclave to another address than the
// gateway's.
type Echo struct {
	Destination netip.Addr
	Hops        int    // that the request may still take behind the gateway; 0: none
	Payload     []byte // of the handler, which may keep and change it

	stack *Stack
	// request is what an error message quotes: the IP header and the first eight
	// bytes behind it (RFC 792), which are those of the echo header.
	request  []byte
	ipHeader int // bytes of request that are the IP header
}

// An ICMPError is what an error message says, by the numbers of the version of
// ICMP that the Destination belongs to.
type ICMPError struct{ Type, Code byte }

// The error messages that are the gateway's own to send.
const (
	// TimeExceeded means that the request had no hops left.
	TimeExceeded = iota
	// Unreachable means that there is no way to the destination.
	Unreachable
	// Prohibited means that the policy denies it.
	Prohibited
)

// OwnError returns one of the constants above as the destination's version of ICMP
// has it (RFC 792, RFC 1812, section 5.2.7.1, RFC 4443, section 3.1).
func (e *Echo) OwnError(which int) ICMPError {
	if e.Destination.Is6() {
		return [...]ICMPError{{byte(header.ICMPv6TimeExceeded), 0}, {byte(header.ICMPv6DstUnreachable), 0}, {byte(header.ICMPv6DstUnreachable), 1}}[which]
	}
	return [...]ICMPError{{byte(header.ICMPv4TimeExceeded), 0}, {byte(header.ICMPv4DstUnreachable), 0}, {byte(header.ICMPv4DstUnreachable), 13}}[which]
}

// takesEcho reports whether the ICMP message in an IP packet to somebody else may
// reach the stack: if it is an echo request, or a further fragment, which is of no
// use without the first one.
func (s *Stack) takesEcho(message []byte, isFurther bool, request byte) bool {
	return s.config.Echo != nil && (isFurther || len(message) > 0 && message[0] == request)
}

// takesEcho4 is takesEcho for a frame with a whole IPv4 header.
func (s *Stack) takesEcho4(frame []byte) bool {
	const offset = 0x1fff // of the fragment
	ip := header.IPv4(frame[payload:])
	start := min(int(ip.HeaderLength()), len(ip))
	return s.takesEcho(ip[start:], binary.BigEndian.Uint16(ip[6:])&offset != 0, byte(header.ICMPv4Echo))
}

// takesEcho6 is takesEcho for a frame with a whole IPv6 header, and a whole fragment
// header if there is one.
func (s *Stack) takesEcho6(frame []byte) bool {
	const offset = 0xfff8
	if frame[ipv6Next] != uint8(header.IPv6FragmentExtHdrIdentifier) {
		return s.takesEcho(frame[ipv6End:], false, byte(header.ICMPv6EchoRequest))
	}
	isFurther := binary.BigEndian.Uint16(frame[ipv6End+2:])&offset != 0
	return s.takesEcho(frame[fragmentEnd:], isFurther, byte(header.ICMPv6EchoRequest))
}

// handleEchoes makes the stack hand echo requests over.
func (s *Stack) handleEchoes() {
	s.stack.SetTransportProtocolHandler(icmp.ProtocolNumber4, s.handleICMP)
	if s.config.IPv6 {
		s.stack.SetTransportProtocolHandler(icmp.ProtocolNumber6, s.handleICMP)
	}
}

// handleICMP reports whether the stack has nothing to do with the message any more:
// those to the gateway it answers itself. The message is whole; as of all that the
// link brings, its checksum is not looked at.
func (s *Stack) handleICMP(id stack.TransportEndpointID, p *stack.PacketBuffer) bool {
	to, _ := netip.AddrFromSlice(id.LocalAddress.AsSlice())
	if to == tapstack.GatewayAddr() || to == tapstack.GatewayAddr6() {
		return false
	}
	ip := p.NetworkHeader().Slice()
	hops := header.IPv4(ip).TTL()
	if to.Is6() {
		hops = header.IPv6(ip).HopLimit()
		ip = ip[:header.IPv6MinimumSize] // a fragment header is not part of the whole
	}
	message := slices.Concat(p.TransportHeader().Slice(), p.Data().AsRange().ToSlice())
	if len(message) < echoHeader || !s.takesEcho(message, false, requestOf(to)) || s.isClosed() {
		return true
	}
	s.config.Echo(&Echo{
		Destination: to, Hops: max(int(hops)-1, 0), Payload: message[echoHeader:],
		stack: s, request: slices.Concat(ip, message[:echoHeader]), ipHeader: len(ip),
	})
	return true
}

func requestOf(addr netip.Addr) byte {
	if addr.Is6() {
		return byte(header.ICMPv6EchoRequest)
	}
	return byte(header.ICMPv4Echo)
}

// Reply answers the enclave in the destination's name. A reply that cannot be sent
// is lost, as on any network.
func (e *Echo) Reply(payload []byte) {
	reply := byte(header.ICMPv4EchoReply)
	if e.Destination.Is6() {
		reply = byte(header.ICMPv6EchoReply)
	}
	const idAndSequence = 4
	message := slices.Concat([]byte{reply, 0, 0, 0}, e.request[e.ipHeader+idAndSequence:], payload)
	e.stack.sendICMP(e.Destination, e.source(), message)
}

// Fail tells the enclave that the request failed, in the name of the router or
// machine from; the zero address is the gateway. A request to a group is not
// answered (RFC 1122, section 3.2.2).
func (e *Echo) Fail(from netip.Addr, what ICMPError) {
	if e.Destination.IsMulticast() {
		return
	}
	if from.Is6() != e.Destination.Is6() || !from.IsValid() {
		from = tapstack.GatewayAddr()
		if e.Destination.Is6() {
			from = tapstack.GatewayAddr6()
		}
	}
	const unused = 4
	message := slices.Concat([]byte{what.Type, what.Code, 0, 0}, make([]byte, unused), e.request)
	e.stack.sendICMP(from, e.source(), message)
}

// source is the address in the enclave.
func (e *Echo) source() netip.Addr {
	if e.Destination.Is6() {
		return netip.AddrFrom16(header.IPv6(e.request).SourceAddress().As16())
	}
	return netip.AddrFrom4(header.IPv4(e.request).SourceAddress().As4())
}

// sendICMP completes the checksum of the message and sends it, in fragments if it is
// longer than the link's packets.
func (s *Stack) sendICMP(from, to netip.Addr, message []byte) {
	r, err := s.stack.FindRoute(nicID, stackAddr(from), stackAddr(to), networkOf(to), false)
	if err != nil {
		return // it was from an address that is not on the link
	}
	defer r.Release()
	protocol := header.ICMPv4ProtocolNumber
	sum := uint16(0)
	if to.Is6() {
		protocol = header.ICMPv6ProtocolNumber
		sum = header.PseudoHeaderChecksum(protocol, stackAddr(from), stackAddr(to), uint16(len(message)))
	}
	binary.BigEndian.PutUint16(message[2:], ^checksum.Checksum(message, sum))
	p := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: int(r.MaxHeaderLength()) + echoHeader,
		Payload:            buffer.MakeWithData(message[echoHeader:]),
	})
	defer p.DecRef()
	copy(p.TransportHeader().Push(echoHeader), message)
	p.TransportProtocolNumber = protocol
	params := stack.NetworkHeaderParams{Protocol: protocol, TTL: echoTTL, TOS: stack.DefaultTOS}
	_ = r.WritePacket(params, p) // what the card drops is counted there
}
