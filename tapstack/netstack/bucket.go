package netstack

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	queueBuckets = 256
	// quantum is what a bucket may send before the next one does: the largest
	// packet, so that each turn sends something.
	quantum = 64<<10 + packetCost
	// freshQuantum is what it may send at once if it had nothing to send for long.
	freshQuantum = 16 << 10
	// keptPackets is the longest list that an empty bucket keeps for the next time.
	keptPackets = 1024
)

// A bucket is the packets of one flow, or of several that have the same place.
type bucket struct {
	packets []*stack.PacketBuffer
	first   int  // of packets, still to be sent
	deficit int  // what it may still send in this turn
	listed  bool // it is among the fresh or the old
}

func (b *bucket) empty() bool { return b.first == len(b.packets) }

func (b *bucket) push(p *stack.PacketBuffer) {
	if len(b.packets) == cap(b.packets) && b.first > len(b.packets)/2 {
		// Half of it is gone already: moving the rest costs less than to grow.
		n := copy(b.packets, b.packets[b.first:])
		clear(b.packets[n:])
		b.packets, b.first = b.packets[:n], 0
	}
	b.packets = append(b.packets, p)
}

// pop takes the packet that came first.
func (b *bucket) pop() *stack.PacketBuffer {
	p := b.packets[b.first]
	b.packets[b.first] = nil
	b.first++
	switch {
	case b.empty() && cap(b.packets) > keptPackets:
		b.packets, b.first = nil, 0
	case b.empty():
		b.packets, b.first = b.packets[:0], 0
	}
	return p
}

// turns are buckets in the order in which they send; each is in one list at most.
type turns struct {
	ring  [queueBuckets]uint8
	first int
	count int
}

func (t *turns) push(b uint8) {
	t.ring[(t.first+t.count)%queueBuckets] = b
	t.count++
}

func (t *turns) pop() {
	t.first = (t.first + 1) % queueBuckets
	t.count--
}

// flowHash is the same for all packets of a flow to the enclave. What has no ports
// that can be told, fragments among it, is one flow for each address that it comes
// from.
func flowHash(p *stack.PacketBuffer, seed uint32) uint32 {
	const source4, fragment4, source6 = 12, 6, 8
	h, isFragment := seed, false
	switch ip := p.NetworkHeader().Slice(); {
	case p.NetworkProtocolNumber == header.IPv4ProtocolNumber && len(ip) >= header.IPv4MinimumSize:
		h = mix(h ^ binary.BigEndian.Uint32(ip[source4:]))
		isFragment = binary.BigEndian.Uint16(ip[fragment4:])&0x3fff != 0 // more to come, or an offset
	case p.NetworkProtocolNumber == header.IPv6ProtocolNumber && len(ip) >= header.IPv6MinimumSize:
		for at := source6; at < source6+header.IPv6AddressSize; at += 4 {
			h = mix(h ^ binary.BigEndian.Uint32(ip[at:]))
		}
		isFragment = len(ip) > header.IPv6MinimumSize
	default:
		return 0
	}
	hasPorts := p.TransportProtocolNumber == header.TCPProtocolNumber || p.TransportProtocolNumber == header.UDPProtocolNumber
	if ports := p.TransportHeader().Slice(); hasPorts && !isFragment && len(ports) >= 4 {
		h = mix(h ^ binary.BigEndian.Uint32(ports))
	}
	return h
}

// mix spreads what differs in any bit over all of them (the finalizer of
// MurmurHash3).
func mix(h uint32) uint32 {
	h ^= h >> 16
	h *= 0x85ebca6b
	h ^= h >> 13
	h *= 0xc2b2ae35
	return h ^ h>>16
}
