package tapstack

import "encoding/binary"

// A Batch gathers the frames of a device in the very form in which they go to
// the stream, so that many of them leave with one write and none is copied:
//
//	sent ──────► written to the stream
//	 |   |              |
//	+---+---+----------+---+----------+------------- - -
//	|   | n | frame    | n | frame    | Next: room for header and frame
//	+---+---+----------+---+----------+------------- - -
//
// In the plain framing the virtio-net header has no place on the stream. Next
// then begins inside the frame before, and Commit puts back what was there.
//
// A Batch is not safe for concurrent use.
type Batch struct {
	framing Framing
	buf     []byte
	sent    int // where what is not yet written begins
	end     int
	frames  int
	bytes   int // of frames

	tooLong, tooShort, forNeighbour int // frames that were left out

	covered [headroom]byte
}

// NewBatch returns an empty Batch for a stream of the given framing.
func NewBatch(f Framing) *Batch {
	b := &Batch{buf: make([]byte, headroom+streamBuffer+maxRecord+1)}
	b.Reset(f)
	return b
}

// Reset empties the Batch, for a stream of the given framing.
func (b *Batch) Reset(f Framing) {
	b.framing = f
	b.sent, b.end = headroom, headroom
	b.frames, b.bytes, b.tooLong, b.tooShort, b.forNeighbour = 0, 0, 0, 0, 0
}

// Next returns where the device puts its next frame with the virtio-net header
// in front; it is one byte longer than the longest frame, so that a longer one
// shows. It returns nil when the Batch is full. Each Next is followed by one
// Commit.
func (b *Batch) Next() []byte {
	if b.end > headroom+streamBuffer {
		return nil
	}
	from := b.end + extendedHeader
	if b.framing == Plain {
		from = b.end + plainHeader - OffloadHeader
		copy(b.covered[:], b.buf[from:])
	}
	return b.buf[from : from+OffloadHeader+MaxFrame+1]
}

// Commit says that the device wrote n bytes to what Next returned, 0 if it had
// no frame. A frame that is too long or too short for the link is left out.
func (b *Batch) Commit(n int) {
	size := n - OffloadHeader
	fits := false
	switch {
	case n == 0:
	case size < MinFrame:
		b.tooShort++
	case size > MaxFrame:
		b.tooLong++
	case b.isForNeighbour(size):
		b.forNeighbour++
	default:
		fits = true
	}
	if b.framing == Plain {
		b.commitPlain(size, fits)
	} else if fits {
		PutExtended(b.buf[b.end:], size)
	}
	if fits {
		b.end += b.framing.header() + size
		if b.framing == Extended {
			b.end += OffloadHeader
		}
		b.frames++
		b.bytes += size
	}
}

// isForNeighbour reports whether the frame in the plain framing would be carried
// on, by the switch of gvproxy, to another machine that takes no segments larger
// than its MTU. The kernel sends them again in small ones.
func (b *Batch) isForNeighbour(size int) bool {
	if b.framing == Extended {
		return false
	}
	frame := b.buf[b.end+plainHeader-OffloadHeader:]
	return frame[offGSOType] != gsoNone && !isForGateway(frame)
}

// isForGateway reports whether the frame, which begins with its virtio-net
// header, goes to the host itself.
func isForGateway(frame []byte) bool {
	return [macLen]byte(frame[OffloadHeader:]) == gatewayMAC()
}

// commitPlain drops the virtio-net header. Large TCP segments and their
// unfinished checksums stay where they go to the host: it is a user-space stack
// that ends every connection itself and verifies no checksum of TCP. All other
// checksums are finished.
func (b *Batch) commitPlain(size int, fits bool) {
	from := b.end + plainHeader - OffloadHeader
	frame := b.buf[from : from+OffloadHeader+max(size, 0)]
	if fits && (binary.LittleEndian.Uint16(frame[offCsumField:]) != tcpChecksum || !isForGateway(frame)) {
		FinishChecksum(frame)
	}
	copy(frame, b.covered[:])
	if fits {
		binary.LittleEndian.PutUint16(b.buf[b.end:], uint16(size))
	}
}

// Unsent returns what has not been written yet.
func (b *Batch) Unsent() []byte { return b.buf[b.sent:b.end] }

// wrote says that n bytes more were written.
func (b *Batch) wrote(n int) { b.sent += n }

// rewind goes back to the beginning of the frame that was cut by the end of its
// stream: the next stream gets it whole.
func (b *Batch) rewind() {
	at := headroom
	for at < b.end {
		next := at + b.recordAt(at)
		if next > b.sent {
			break
		}
		at = next
	}
	b.sent = at
}

// recordAt returns the size of the record that begins there.
func (b *Batch) recordAt(at int) int {
	if b.framing == Extended {
		return extendedHeader + int(binary.LittleEndian.Uint32(b.buf[at:])&(1<<typeShift-1))
	}
	return plainHeader + int(binary.LittleEndian.Uint16(b.buf[at:]))
}
