package netstack

import (
	"bytes"
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/corridor-enclave/corridor/tapstack"
)

// A coalescer joins TCP segments that follow each other into one frame, as
// receivers do (Linux: net/ipv4/tcp_offload.c, tcp_gro_receive), so that the stack
// works once for dozens of what an enclave without offload sends. Only frames that
// were read together are joined: nothing ever waits for more.
//
//	| Ethernet, IP, TCP | payload | + | headers | payload | = | headers | payload, payload |
//
// Joined are segments over IPv4, without IP options, that differ in nothing but their
// sequence numbers, payloads, IP identification and checksums; PSH ends what is
// joined, as does a segment that is shorter than the first. All other frames pass as
// they are, in their order.
type coalescer struct {
	deliver func(frame []byte)
	joined  []byte // the frame so far; empty if there is none
	headers int    // its length up to the payload
	size    int    // the payload of its first segment
	next    uint32 // the sequence number that continues it
}

const (
	// maxJoining is the longest frame that is joined with others: the largest usual
	// MTU. Longer ones were joined before they were sent.
	maxJoining = 9000 + tapstack.MinFrame
	// maxJoined is the longest IP packet that is made, and that there is.
	maxJoined = 65535

	ipHeader   = payload // where it begins
	tcpHeader  = payload + header.IPv4MinimumSize
	tcpSeq     = tcpHeader + 4
	tcpAck     = tcpHeader + 8
	tcpFlags   = tcpHeader + 13
	tcpWindow  = tcpHeader + 14
	tcpOptions = tcpHeader + header.TCPMinimumSize

	pushFlag = byte(header.TCPFlagPsh)
	ackFlag  = byte(header.TCPFlagAck)
)

func newCoalescer(deliver func(frame []byte)) *coalescer {
	return &coalescer{deliver: deliver, joined: make([]byte, 0, tapstack.MinFrame+maxJoined)}
}

// add takes a frame, which is good until it returns. more says that another one
// follows at once; without it nothing is kept.
func (c *coalescer) add(frame []byte, more bool) {
	headers, ok := joinable(frame)
	if ok && c.continues(frame, headers) {
		c.join(frame, more)
		return
	}
	c.flush()
	if !ok || !more || frame[tcpFlags]&pushFlag != 0 {
		c.deliver(frame)
		return
	}
	c.joined = append(c.joined, frame...)
	c.headers, c.size = headers, len(frame)-headers
	c.next = binary.BigEndian.Uint32(frame[tcpSeq:]) + uint32(c.size)
}

// join appends the payload of a frame that continues the joined one.
func (c *coalescer) join(frame []byte, more bool) {
	data := frame[c.headers:]
	c.joined = append(c.joined, data...)
	c.joined[tcpFlags] |= frame[tcpFlags] & pushFlag
	c.next += uint32(len(data))
	if !more || len(data) < c.size || frame[tcpFlags]&pushFlag != 0 {
		c.flush()
	}
}

// flush delivers what was joined.
func (c *coalescer) flush() {
	if len(c.joined) == 0 {
		return
	}
	ip := header.IPv4(c.joined[ipHeader:tcpHeader])
	ip.SetTotalLength(uint16(len(c.joined) - ipHeader))
	ip.SetChecksum(0)
	ip.SetChecksum(^ip.CalculateChecksum())
	// The checksum of TCP is that of the first segment: nobody verifies it, since
	// the card says that it was.
	c.deliver(c.joined)
	c.joined = c.joined[:0]
}

// joinable reports whether frame is a TCP segment that may be joined with others,
// and how long its headers are.
func joinable(frame []byte) (headers int, ok bool) {
	if len(frame) <= tcpOptions || len(frame) > maxJoining || header.Ethernet(frame).Type() != header.IPv4ProtocolNumber {
		return 0, false
	}
	const versionAndLength, dontFragment = 0x45, 0x4000
	ip := header.IPv4(frame[ipHeader:])
	isWhole := binary.BigEndian.Uint16(ip[6:])&^dontFragment == 0
	if ip[0] != versionAndLength || !isWhole || ip.Protocol() != uint8(header.TCPProtocolNumber) ||
		int(ip.TotalLength()) != len(frame)-ipHeader || !ip.IsChecksumValid() {
		return 0, false
	}
	headers = tcpHeader + int(header.TCP(frame[tcpHeader:]).DataOffset())
	flags := frame[tcpFlags] &^ pushFlag
	return headers, headers >= tcpOptions && headers < len(frame) && flags == ackFlag
}

// continues reports whether a joinable frame follows the joined one, and fits.
func (c *coalescer) continues(frame []byte, headers int) bool {
	j := c.joined
	if len(j) == 0 || headers != c.headers || len(frame)-headers > c.size || len(j)+len(frame)-headers-ipHeader > maxJoined {
		return false
	}
	const tos, fragment, sumOfIP, addresses = ipHeader + 1, ipHeader + 6, ipHeader + 10, ipHeader + 12
	return binary.BigEndian.Uint32(frame[tcpSeq:]) == c.next &&
		bytes.Equal(frame[:ipHeader], j[:ipHeader]) && frame[tos] == j[tos] &&
		bytes.Equal(frame[fragment:sumOfIP], j[fragment:sumOfIP]) && // and TTL and protocol
		bytes.Equal(frame[addresses:tcpSeq], j[addresses:tcpSeq]) && // and ports
		bytes.Equal(frame[tcpAck:tcpFlags], j[tcpAck:tcpFlags]) &&
		bytes.Equal(frame[tcpWindow:tcpWindow+2], j[tcpWindow:tcpWindow+2]) &&
		bytes.Equal(frame[tcpOptions:headers], j[tcpOptions:headers])
}
