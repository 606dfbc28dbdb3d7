package netstack

import (
	"encoding/binary"
	"iter"

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

	// largePayload is from where on a piece of its own in a write costs less than
	// to copy it.
	largePayload = 4 << 10

	extendedLength = 4 // what precedes the virtio-net header of a frame
)

// An encoder turns packets of the stack into the frames that a peer takes. What
// it gathers is written as one piece, of which large payloads stay where the
// stack keeps them:
//
//	buf    | n | header |  | n | header | small frame | n | header |  |
//	cuts                 ^                                          ^
//	                  payload                                    payload
type encoder struct {
	peer    Peer
	inPlace bool // payloads need not be copied into buf
	buf     []byte
	cuts    []cut
	outside int      // bytes of all cuts
	scratch []byte   // one frame with its virtio-net header, for a peer without offload
	pieces  [][]byte // what gathered returned
}

// A cut is payload that goes between buf[:at] and buf[at:]. It belongs to a packet,
// and is good for as long as that is held.
type cut struct {
	at      int
	payload []byte
}

func newEncoder(p Peer, inPlace bool) *encoder {
	return &encoder{
		peer:    p,
		inPlace: inPlace,
		buf:     make([]byte, 0, writeBuffer+encodedSlack),
		scratch: make([]byte, 0, tapstack.OffloadHeader+tapstack.MaxFrame),
	}
}

// reset forgets what was gathered.
func (e *encoder) reset() {
	clear(e.cuts)
	e.buf, e.cuts, e.outside = e.buf[:0], e.cuts[:0], 0
}

// size is how many bytes were gathered.
func (e *encoder) size() int { return len(e.buf) + e.outside }

// gathered returns what was gathered, in order: good until the next call, or add.
func (e *encoder) gathered() [][]byte {
	dst, from := e.pieces[:0], 0
	for _, c := range e.cuts {
		if c.at > from {
			dst = append(dst, e.buf[from:c.at])
		}
		dst = append(dst, c.payload)
		from = c.at
	}
	if from < len(e.buf) {
		dst = append(dst, e.buf[from:])
	}
	e.pieces = dst
	return dst
}

// add gathers the frames of a packet, and returns how many they are: 0 if the peer
// does not take the packet.
func (e *encoder) add(p *stack.PacketBuffer) int {
	size := p.Size()
	if size > tapstack.MaxFrame {
		return 0
	}
	if e.peer.Framing != tapstack.Extended || !e.peer.Takes.Offload {
		e.scratch = appendOffload(e.scratch[:0], p)
		for b := range viewsOf(p) {
			e.scratch = append(e.scratch, b...)
		}
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
	e.buf = appendOffload(e.buf, p)
	for b := range viewsOf(p) {
		if e.inPlace && len(b) >= largePayload {
			e.cuts = append(e.cuts, cut{len(e.buf), b})
			e.outside += len(b)
			continue
		}
		e.buf = append(e.buf, b...)
	}
	return 1
}

// viewsOf yields the bytes of a packet, piece by piece.
func viewsOf(p *stack.PacketBuffer) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
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
			if !yield(b[skip:]) {
				return
			}
			skip = 0
		}
	}
}

// The parts of a virtio-net header that the stack uses; tapstack describes all.
const (
	needsChecksum = 1
	segmentIPv4   = 1
	segmentIPv6   = 4
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
		if gso.Type != stack.GSONone && p.Data().Size() > int(gso.MSS) {
			header[1] = segmentIPv4
			if gso.Type == stack.GSOTCPv6 {
				header[1] = segmentIPv6
			}
			binary.LittleEndian.PutUint16(header[4:], gso.MSS)
		}
	}
	return append(dst, header[:]...)
}
