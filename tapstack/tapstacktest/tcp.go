package tapstacktest

import (
	"encoding/binary"
	"net/netip"
)

// The TCP flags that tests set (RFC 9293, section 3.1).
const (
	FlagFIN = 0x01
	FlagPSH = 0x08
	FlagACK = 0x10
)

// tcpHeader is the length of a TCP header without options.
const tcpHeader = 20

// TCP returns a TCP segment without options, with its checksum.
func TCP(src, dst netip.AddrPort, sequence uint32, flags byte, payload []byte) []byte {
	b := make([]byte, tcpHeader, tcpHeader+len(payload))
	binary.BigEndian.PutUint16(b, src.Port())
	binary.BigEndian.PutUint16(b[2:], dst.Port())
	binary.BigEndian.PutUint32(b[4:], sequence)
	b[12] = tcpHeader / 4 << 4
	b[13] = flags
	binary.BigEndian.PutUint16(b[14:], 0xffff) // window
	b = append(b, payload...)
	binary.BigEndian.PutUint16(b[16:], Checksum(0, append(Pseudo(src.Addr(), dst.Addr(), ProtocolTCP, len(b)), b...)))
	return b
}

// Pseudo returns the header that the checksum of a segment of the given length
// covers beside the segment (RFC 9293, section 3.1; RFC 8200, section 8.1).
func Pseudo(src, dst netip.Addr, protocol byte, length int) []byte {
	b := append(src.AsSlice(), dst.AsSlice()...)
	b = binary.BigEndian.AppendUint32(b, uint32(length))
	return binary.BigEndian.AppendUint32(b, uint32(protocol))
}

// IPv6 returns an IPv6 packet without extension headers (RFC 8200).
func IPv6(next byte, src, dst netip.Addr, payload []byte) []byte {
	b := []byte{6 << 4, 0, 0, 0}
	b = binary.BigEndian.AppendUint16(b, uint16(len(payload)))
	b = append(b, next, 64)
	b = append(append(b, src.AsSlice()...), dst.AsSlice()...)
	return append(b, payload...)
}

// EtherTypeIPv6 is that of IPv6.
const EtherTypeIPv6 = 0x86dd
