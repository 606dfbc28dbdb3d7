package netstack

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/corridor-enclave/corridor/tapstack"
)

// A Peer is an enclave as its stream's request described it.
type Peer struct {
	// Framing of the stream, in both directions.
	Framing tapstack.Framing
	// Takes is what the enclave takes: no frame goes beyond it.
	Takes tapstack.Capabilities
}

const (
	// writeBuffer is how many bytes one write gathers; a packet may be added to
	// one byte less.
	writeBuffer = 256 << 10
	// encodedSlack holds the largest packet in the worst encoding: cut into the
	// smallest segments, each with headers of its own. Only a strange enclave
	// needs more, for which the buffer grows.
	encodedSlack = 2 * tapstack.MaxFrame

	extendedLength = 4 // what precedes the virtio-net header of a frame
)

// An encoder turns packets of the stack into the frames that a peer takes.
type encoder struct {
	peer    Peer
	buf     []byte
	scratch []byte // one frame with its virtio-net header, for a peer without offload
}

func newEncoder(p Peer) *encoder {
	return &encoder{
		peer:    p,
		buf:     make([]byte, 0, writeBuffer+encodedSlack),
		scratch: make([]byte, 0, tapstack.OffloadHeader+tapstack.MaxFrame),
	}
}

// add appends the frames of a packet to buf, and returns how many they are: 0 if
// the peer does not take the packet.
func (e *encoder) add(p *stack.PacketBuffer) int {
	size := p.Size()
	if size > tapstack.MaxFrame {
		return 0
	}
	if e.peer.Framing != tapstack.Extended || !e.peer.Takes.Offload {
		e.scratch = appendPacket(e.scratch[:0], p)
		var n int
		e.buf, n = tapstack.AppendFinished(e.buf, e.scratch, e.peer.Framing, e.peer.Takes.MaxFrame)
		return n
	}
	if size > e.peer.Takes.MaxFrame {
		return 0
	}
	at := len(e.buf)
	e.buf = append(e.buf, make([]byte, extendedLength)...)
	tapstack.PutExtended(e.buf[at:], size)
	e.buf = appendPacket(e.buf, p)
	return 1
}

// appendPacket appends the packet with its virtio-net header to dst.
func appendPacket(dst []byte, p *stack.PacketBuffer) []byte {
	dst = appendOffload(dst, p)
	// The list begins with the header room that was reserved and not used: skip
	// bytes of it are not part of the frame. Sending them would desynchronise the
	// stream without any error.
	views, skip := p.AsViewList()
	for v := views.Front(); v != nil; v = v.Next() {
		b := v.AsSlice()
		if skip >= len(b) {
			skip -= len(b)
			continue
		}
		dst = append(dst, b[skip:]...)
		skip = 0
	}
	return dst
}

// The parts of a virtio-net header that the stack uses; tapstack describes all.
const (
	needsChecksum = 1
	segmentIPv4   = 1
)

// appendOffload appends the virtio-net header that says what the stack has left
// undone: the checksum of every TCP segment of an established connection, and
// the cutting of those that are larger than one segment.
func appendOffload(dst []byte, p *stack.PacketBuffer) []byte {
	var header [tapstack.OffloadHeader]byte
	if gso := p.GSOOptions; gso.NeedsCsum {
		header[0] = needsChecksum
		start := tapstack.MinFrame + len(p.NetworkHeader().Slice())
		binary.LittleEndian.PutUint16(header[2:], uint16(start+len(p.TransportHeader().Slice())))
		binary.LittleEndian.PutUint16(header[6:], uint16(start))
		binary.LittleEndian.PutUint16(header[8:], gso.CsumOffset)
		if gso.Type == stack.GSOTCPv4 && p.Data().Size() > int(gso.MSS) {
			header[1] = segmentIPv4
			binary.LittleEndian.PutUint16(header[4:], gso.MSS)
		}
	}
	return append(dst, header[:]...)
}
