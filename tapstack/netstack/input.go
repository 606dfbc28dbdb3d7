package netstack

import (
	"encoding/binary"
	"net/netip"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/corridor-enclave/corridor/tapstack"
)

// Offsets into an Ethernet frame.
const (
	sourceMAC    = 6
	etherType    = 12
	payload      = 14
	macLen       = 6
	ipv4Protocol = payload + 9
	ipv4Source   = payload + 12
	ipv4Target   = payload + 16
	ipv4End      = payload + header.IPv4MinimumSize
	arpOperation = payload + 7 // the low byte; the high one is zero for all known
	arpSender    = payload + 14
	arpTarget    = payload + 24
	arpEnd       = payload + header.ARPSize

	// headRoom is the part of a packet that is kept apart: all headers of most, and all
	// of a small one.
	headRoom = 512
)

// input takes one frame from the enclave, of at least tapstack.MinFrame bytes.
// What the stack has no use for is dropped and counted; the stack itself
// decides about the rest. The frame is copied.
func (s *Stack) input(frame []byte) {
	switch protocol := header.Ethernet(frame).Type(); protocol {
	case arp.ProtocolNumber:
		s.inputARP(frame)
	case ipv4.ProtocolNumber:
		s.inputIPv4(frame)
	case ipv6.ProtocolNumber:
		s.inputIPv6(frame)
	default:
		s.counts.dropProtocol.Add(1)
	}
}

// inputARP answers requests for the gateway and its aliases only. The stack by
// itself would answer for every address, also for the enclave's own, which then
// seems to be taken twice.
func (s *Stack) inputARP(frame []byte) {
	if len(frame) < arpEnd {
		s.counts.dropMalformed.Add(1)
		return
	}
	if frame[arpOperation] == byte(header.ARPRequest) && !s.answersFor(ipv4At(frame, arpTarget)) {
		s.counts.dropNotForGateway.Add(1)
		return
	}
	s.learn(frame, ipv4At(frame, arpSender))
	s.deliver(arp.ProtocolNumber, frame)
}

// inputIPv4 drops ICMP to others than the gateway, but for the echo requests that
// somebody handles: the stack by itself would answer them in the name of any
// machine, reachable or not.
func (s *Stack) inputIPv4(frame []byte) {
	if len(frame) < ipv4End {
		s.counts.dropMalformed.Add(1)
		return
	}
	if frame[ipv4Protocol] == byte(header.ICMPv4ProtocolNumber) && ipv4At(frame, ipv4Target) != tapstack.GatewayAddr() && !s.takesEcho4(frame) {
		s.counts.dropNotForGateway.Add(1)
		return
	}
	s.learn(frame, ipv4At(frame, ipv4Source))
	s.deliver(ipv4.ProtocolNumber, frame)
}

// learn corrects the hardware address of the enclave, which is a static
// neighbour from the start, so that nothing ever waits for ARP. A client that
// asks for its address by DHCP speaks from 0.0.0.0 first; that counts until the
// enclave's own address has been seen. The goroutines of all lanes call it.
func (s *Stack) learn(frame []byte, sender netip.Addr) {
	mac := packMAC(frame[sourceMAC : sourceMAC+macLen])
	isGroup := frame[sourceMAC]&1 != 0
	isEnclave := sender == tapstack.EnclaveAddr() || sender == tapstack.EnclaveAddr6()
	isGuess := sender.IsUnspecified() && !s.enclaveKnown.Load()
	if isGroup || (!isEnclave && !isGuess) {
		return
	}
	if mac != s.enclaveMAC.Load() {
		// It can fail only for a card that does not exist.
		_ = s.setEnclaveMAC(mac)
	}
	if isEnclave && !s.enclaveKnown.Load() {
		s.enclaveKnown.Store(true)
	}
}

// askForEnclave sends an ARP request for the enclave's hardware address, unless
// it is known. An enclave that was configured by hand and has not yet said
// anything is not reached otherwise, if it does not have the usual one. The
// answer is learned like any frame, before the connection's second attempt.
func (s *Stack) askForEnclave() {
	if s.enclaveKnown.Load() {
		return
	}
	p := stack.NewPacketBuffer(stack.PacketBufferOptions{ReserveHeaderBytes: int(s.card.MaxHeaderLength()) + header.ARPSize})
	defer p.DecRef()
	gateway, enclave := tapstack.GatewayAddr().As4(), tapstack.EnclaveAddr().As4()
	request := header.ARP(p.NetworkHeader().Push(header.ARPSize))
	request.SetIPv4OverEthernet()
	request.SetOp(header.ARPRequest)
	copy(request.HardwareAddressSender(), s.card.LinkAddress())
	copy(request.ProtocolAddressSender(), gateway[:])
	copy(request.ProtocolAddressTarget(), enclave[:])
	p.NetworkProtocolNumber = arp.ProtocolNumber
	p.EgressRoute.RemoteLinkAddress = header.EthernetBroadcastAddress
	s.card.AddHeader(p)
	s.card.lane(p).push(p, false)
}

// setEnclaveMAC makes packed the address of the static neighbour.
func (s *Stack) setEnclaveMAC(packed uint64) tcpip.Error {
	s.learning.Lock()
	defer s.learning.Unlock()
	s.enclaveMAC.Store(packed)
	mac := unpackMAC(packed)
	if s.config.IPv6 {
		if err := s.stack.AddStaticNeighbor(nicID, ipv6.ProtocolNumber, stackAddr(tapstack.EnclaveAddr6()), mac); err != nil {
			return err
		}
	}
	return s.stack.AddStaticNeighbor(nicID, ipv4.ProtocolNumber, stackAddr(tapstack.EnclaveAddr()), mac)
}

// packMAC makes one number of a hardware address, which can be compared at once.
func packMAC(mac []byte) uint64 {
	var b [8]byte
	copy(b[:], mac)
	return binary.LittleEndian.Uint64(b[:])
}

func unpackMAC(packed uint64) tcpip.LinkAddress {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], packed)
	return tcpip.LinkAddress(b[:macLen])
}

// deliver gives the stack a copy of the packet. That copies what holds the IP header once
// more, as a whole (buffer.PullUp, of what somebody else looks at too), so the headers
// of a large one are kept apart from its payload.
func (s *Stack) deliver(protocol tcpip.NetworkProtocolNumber, frame []byte) {
	packet := frame[payload:]
	head := packet[:min(len(packet), headRoom)]
	data := buffer.MakeWithData(head)
	if rest := packet[len(head):]; len(rest) > 0 {
		// It takes every view.
		_ = data.Append(buffer.NewViewWithData(rest))
	}
	p := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: data})
	s.card.deliver(protocol, p)
	p.DecRef()
}

// ipv4At reads an address; the caller has checked that it is there.
func ipv4At(frame []byte, at int) netip.Addr {
	return netip.AddrFrom4([4]byte(frame[at : at+4]))
}
