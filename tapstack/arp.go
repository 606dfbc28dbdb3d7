package tapstack

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// An ARP packet for IPv4 over Ethernet (RFC 826), with its Ethernet header:
//
//	 0       6      12   14   16   18 19 20   22      28    32      38    42
//	+-------+-------+----+----+----+--+--+----+-------+-----+-------+-----+
//	|to MAC |from   |0806|0001|0800| 6| 4| op |sender |sndr |target |trgt |
//	|       |MAC    |    |    |    |  |  |    |MAC    |IPv4 |MAC    |IPv4 |
//	+-------+-------+----+----+----+--+--+----+-------+-----+-------+-----+
const (
	arpFrameLen     = 42
	etherTypeARP    = 0x0806
	etherTypeIPv4   = 0x0800
	arpEthernet     = 1
	arpOpRequest    = 1
	arpOpReply      = 2
	macLen          = 6
	ipv4Len         = 4
	offEtherType    = 12
	offHardwareType = 14
	offProtocolType = 16
	offAddrLengths  = 18
	offOperation    = 20
	offSenderAddr   = 28
	offTargetAddr   = 38
	arpAddrLengths  = macLen<<8 | ipv4Len
	broadcastByte   = 0xff
)

// arpRequest returns the frame that asks everybody for the MAC of target on
// behalf of the enclave's mac and addr. Both addresses must be IPv4.
func arpRequest(mac net.HardwareAddr, addr, target netip.Addr) []byte {
	b := make([]byte, 0, arpFrameLen)
	for range macLen {
		b = append(b, broadcastByte)
	}
	b = append(b, mac[:macLen]...)
	b = binary.BigEndian.AppendUint16(b, etherTypeARP)
	b = binary.BigEndian.AppendUint16(b, arpEthernet)
	b = binary.BigEndian.AppendUint16(b, etherTypeIPv4)
	b = binary.BigEndian.AppendUint16(b, arpAddrLengths)
	b = binary.BigEndian.AppendUint16(b, arpOpRequest)
	b = append(b, mac[:macLen]...)
	b = append(b, addr.AsSlice()...)
	b = append(b, make([]byte, macLen)...) // the MAC that is asked for
	return append(b, target.AsSlice()...)
}

// isARPReply reports whether frame is the answer to arpRequest(mac, addr,
// target) for any MAC. The frame comes from the host: it may be anything.
func isARPReply(frame []byte, addr, target netip.Addr) bool {
	if len(frame) < arpFrameLen {
		return false
	}
	field := func(off int) uint16 { return binary.BigEndian.Uint16(frame[off:]) }
	return field(offEtherType) == etherTypeARP &&
		field(offHardwareType) == arpEthernet &&
		field(offProtocolType) == etherTypeIPv4 &&
		field(offAddrLengths) == arpAddrLengths &&
		field(offOperation) == arpOpReply &&
		netip.AddrFrom4([4]byte(frame[offSenderAddr:])) == target &&
		netip.AddrFrom4([4]byte(frame[offTargetAddr:])) == addr
}
