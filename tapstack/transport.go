package tapstack

import "encoding/binary"

// Offsets and numbers of the headers behind Ethernet (RFC 791, 8200, 9293, 768).
const (
	etherTypeIPv6 = 0x86dd

	ipv4MinHeader  = 20
	ipv4TotalLen   = 2
	ipv4Identifier = 4
	ipv4Fragment   = 6
	ipv4Protocol   = 9
	ipv4Checksum   = 10
	ipv4Source     = 12
	// ipv4Fragmented are the bit "more fragments" and the offset.
	ipv4Fragmented = 0x3fff

	ipv6Header     = 40
	ipv6PayloadLen = 4
	ipv6NextHeader = 6
	ipv6Source     = 8

	protocolTCP = 6
	protocolUDP = 17

	tcpMinHeader = 20
	tcpSequence  = 4
	tcpDataStart = 12
	tcpFlags     = 13
	tcpChecksum  = 16
	udpHeader    = 8
	udpChecksum  = 6
)

// A transport is where the headers of a frame are, in bytes from its Ethernet
// header.
type transport struct {
	v6       bool
	protocol byte // protocolTCP or protocolUDP
	start    int  // of the transport header
	field    int  // of the checksum, from start
	end      int  // of the transport header
}

func (t transport) gsoType() byte {
	switch {
	case t.protocol != protocolTCP:
		return gsoNone
	case t.v6:
		return gsoTCPv6
	}
	return gsoTCPv4
}

// findTransport finds the TCP or UDP header of a frame of any bytes, at least
// MinFrame of them. The headers it reports are whole.
func findTransport(frame []byte) (transport, error) {
	var t transport
	var err error
	switch binary.BigEndian.Uint16(frame[offEtherType:]) {
	case etherTypeIPv4:
		t, err = findBehindIPv4(frame[MinFrame:])
	case etherTypeIPv6:
		t, err = findBehindIPv6(frame[MinFrame:])
	default:
		return t, errOffloadProtocol
	}
	if err != nil {
		return t, err
	}
	t.start += MinFrame
	switch t.protocol {
	case protocolTCP:
		t.field, t.end = tcpChecksum, t.start+tcpMinHeader
	case protocolUDP:
		t.field, t.end = udpChecksum, t.start+udpHeader
	default:
		return t, errOffloadProtocol
	}
	if t.end > len(frame) {
		return t, errOffloadShort
	}
	if t.protocol == protocolTCP {
		t.end = t.start + int(frame[t.start+tcpDataStart]>>4)*4
	}
	if t.end < t.start+udpHeader || t.end > len(frame) || (t.protocol == protocolTCP && t.end < t.start+tcpMinHeader) {
		return t, errOffloadShort
	}
	return t, nil
}

func findBehindIPv4(packet []byte) (transport, error) {
	var t transport
	if len(packet) < ipv4MinHeader {
		return t, errOffloadShort
	}
	t.start = int(packet[0]&0x0f) * 4
	t.protocol = packet[ipv4Protocol]
	switch {
	case packet[0]>>4 != 4:
		return t, errOffloadProtocol
	case t.start < ipv4MinHeader:
		return t, errOffloadShort
	case int(binary.BigEndian.Uint16(packet[ipv4TotalLen:])) != len(packet):
		return t, errOffloadLength
	case binary.BigEndian.Uint16(packet[ipv4Fragment:])&ipv4Fragmented != 0:
		return t, errOffloadFragment
	}
	return t, nil
}

// findBehindIPv6 takes no extension headers: nobody offloads behind one.
func findBehindIPv6(packet []byte) (transport, error) {
	t := transport{v6: true, start: ipv6Header}
	switch {
	case len(packet) < ipv6Header:
		return t, errOffloadShort
	case packet[0]>>4 != 6:
		return t, errOffloadProtocol
	case int(binary.BigEndian.Uint16(packet[ipv6PayloadLen:])) != len(packet)-ipv6Header:
		return t, errOffloadLength
	}
	t.protocol = packet[ipv6NextHeader]
	return t, nil
}
