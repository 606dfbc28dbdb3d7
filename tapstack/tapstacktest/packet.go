package tapstacktest

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// The EtherTypes and ARP operations that the builders know.
const (
	EtherTypeIPv4 = 0x0800
	EtherTypeARP  = 0x0806

	ARPRequestOp = 1
	ARPReplyOp   = 2
)

// IP protocol numbers for IPv4.
const (
	ProtocolICMP = 1
	ProtocolTCP  = 6
	ProtocolUDP  = 17
)

// Broadcast returns the MAC that addresses everybody.
func Broadcast() net.HardwareAddr {
	return net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
}

// Ethernet returns a frame: header and payload, without padding.
func Ethernet(dst, src net.HardwareAddr, etherType uint16, payload []byte) []byte {
	b := append(append([]byte(nil), dst...), src...)
	b = binary.BigEndian.AppendUint16(b, etherType)
	return append(b, payload...)
}

// ARP returns an ARP payload for IPv4 over Ethernet (RFC 826).
func ARP(op uint16, senderMAC net.HardwareAddr, sender netip.Addr, targetMAC net.HardwareAddr, target netip.Addr) []byte {
	b := []byte{0, 1, 8, 0, 6, 4}
	b = binary.BigEndian.AppendUint16(b, op)
	b = append(append(b, senderMAC...), sender.AsSlice()...)
	return append(append(b, targetMAC...), target.AsSlice()...)
}

// ARPRequest returns the frame that asks everybody for the MAC of target.
func ARPRequest(mac net.HardwareAddr, addr, target netip.Addr) []byte {
	return Ethernet(Broadcast(), mac, EtherTypeARP, ARP(ARPRequestOp, mac, addr, make(net.HardwareAddr, 6), target))
}

// ARPReply returns the frame that tells dstMAC, dst that addr is at mac.
func ARPReply(mac net.HardwareAddr, addr netip.Addr, dstMAC net.HardwareAddr, dst netip.Addr) []byte {
	return Ethernet(dstMAC, mac, EtherTypeARP, ARP(ARPReplyOp, mac, addr, dstMAC, dst))
}

// IPv4 returns an IPv4 packet without options, its header checksum right
// (RFC 791). The time to live is 64.
func IPv4(protocol byte, src, dst netip.Addr, payload []byte) []byte {
	const headerLen = 20
	b := make([]byte, headerLen, headerLen+len(payload))
	b[0] = 4<<4 | headerLen/4
	binary.BigEndian.PutUint16(b[2:], uint16(headerLen+len(payload)))
	b[8] = 64
	b[9] = protocol
	copy(b[12:], src.AsSlice())
	copy(b[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(b[10:], Checksum(0, b))
	return append(b, payload...)
}

// UDP returns a UDP datagram with its checksum (RFC 768).
func UDP(src, dst netip.AddrPort, payload []byte) []byte {
	const headerLen = 8
	b := make([]byte, headerLen, headerLen+len(payload))
	binary.BigEndian.PutUint16(b, src.Port())
	binary.BigEndian.PutUint16(b[2:], dst.Port())
	binary.BigEndian.PutUint16(b[4:], uint16(headerLen+len(payload)))
	b = append(b, payload...)
	pseudo := append(append([]byte(nil), src.Addr().AsSlice()...), dst.Addr().AsSlice()...)
	pseudo = append(pseudo, 0, ProtocolUDP)
	pseudo = binary.BigEndian.AppendUint16(pseudo, uint16(len(b)))
	sum := Checksum(0, append(pseudo, b...))
	if sum == 0 {
		sum = 0xffff // zero means that there is none
	}
	binary.BigEndian.PutUint16(b[6:], sum)
	return b
}

// ICMPEcho returns an ICMP echo request with its checksum (RFC 792).
func ICMPEcho(id, sequence uint16, payload []byte) []byte {
	b := []byte{8, 0, 0, 0}
	b = binary.BigEndian.AppendUint16(b, id)
	b = binary.BigEndian.AppendUint16(b, sequence)
	b = append(b, payload...)
	binary.BigEndian.PutUint16(b[2:], Checksum(0, b))
	return b
}

// Checksum returns the Internet checksum (RFC 1071) of b, continuing from the
// one's complement sum start. It is zero over data that includes its checksum.
func Checksum(start uint16, b []byte) uint16 {
	sum := uint32(start)
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
