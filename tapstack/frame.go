package tapstack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Framing is how frames follow each other on a stream. A stream has one, which
// its request chose, from its first byte to its last.
//
// Plain, the link of gvproxy (WIRE.md, section 4):
//
//	 0        2                      2+n
//	+--------+------------------------+
//	| n (LE) | Ethernet frame, n bytes|   MinFrame <= n <= MaxFrame
//	+--------+------------------------+
//
// Extended, between two ends of ours (WIRE.md, section 9):
//
//	 0             4               14
//	+-------------+---------------+----------------+
//	| type, n (LE)| virtio-net    | Ethernet frame |   n counts both
//	+-------------+---------------+----------------+
//	  type: the upper 4 bits; 0 is a frame, 1 is control (see Pulse)
type Framing uint8

// The framings.
const (
	Plain Framing = iota
	Extended
)

// String names the framing as the log shows it.
func (f Framing) String() string {
	if f == Extended {
		return "extended"
	}
	return "plain"
}

// header is the size of what precedes the Ethernet frame or, if Extended, its
// virtio-net header.
func (f Framing) header() int {
	if f == Extended {
		return extendedHeader
	}
	return plainHeader
}

const (
	// MinFrame is the length of the shortest frame: an Ethernet header alone.
	MinFrame = 14
	// MaxFrame is the length of the longest frame that the length field of the
	// plain framing can say, and the longest of the extended one.
	MaxFrame = 65535

	plainHeader    = 2
	extendedHeader = 4
	typeShift      = 28
	typeFrame      = 0
	typeControl    = 1
	// maxControl is the longest control record that is skipped.
	maxControl = 1024

	// headroom is what a virtio-net header takes in front of a plain frame beyond
	// the length field. It lies over bytes that are dealt with already.
	headroom = OffloadHeader - plainHeader
	// streamBuffer is how many bytes one read or write of the stream takes at
	// most: it costs the same for one small frame as for a hundred full ones.
	streamBuffer = 256 << 10
	// maxRecord is the largest piece of a stream.
	maxRecord = extendedHeader + OffloadHeader + MaxFrame
)

// ErrFrameSize reports a frame length below MinFrame or above what the reader
// accepts. The stream has lost its framing: close it.
var ErrFrameSize = errors.New("tapstack: frame size out of range")

// AppendFrame appends frame with its length in front to dst, in the plain
// framing, and returns the extended slice. It panics if the frame is outside
// MinFrame..MaxFrame: what is sent comes from one's own device, whose limits the
// caller has checked.
func AppendFrame(dst, frame []byte) []byte {
	if len(frame) < MinFrame || len(frame) > MaxFrame {
		panic(fmt.Sprintf("tapstack: AppendFrame with %d bytes", len(frame)))
	}
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(frame)))
	return append(dst, frame...)
}

// PutExtended writes what precedes a frame of n bytes, without its virtio-net
// header, in the extended framing: to the first four bytes of dst.
func PutExtended(dst []byte, n int) {
	binary.LittleEndian.PutUint32(dst, typeFrame<<typeShift|uint32(OffloadHeader+n))
}

// A FrameReader cuts a stream into frames. It reads ahead, so nothing else may
// read from the stream. It is not safe for concurrent use.
type FrameReader struct {
	r          io.Reader
	framing    Framing
	limit      int
	control    func(record []byte)
	read       func(n int)
	buf        []byte
	start, end int   // of what was read and not yet cut; start >= headroom
	err        error // that came with the last bytes
}

// NewFrameReader returns a reader of the frames on r, of which none may have more
// than limit bytes from its Ethernet header on.
func NewFrameReader(r io.Reader, framing Framing, limit int) *FrameReader {
	return &FrameReader{
		r: r, framing: framing, limit: min(limit, MaxFrame),
		buf: make([]byte, headroom+streamBuffer), start: headroom, end: headroom,
	}
}

// OnControl has f called, by Next, for each control record: with what follows its
// first four bytes, until f returns. Without it they are skipped.
func (fr *FrameReader) OnControl(f func(record []byte)) { fr.control = f }

// OnRead has f called, by Next, for each read of the stream that brought n bytes.
func (fr *FrameReader) OnRead(f func(n int)) { fr.read = f }

// Next returns the next frame with its virtio-net header in front, which is all
// zero in the plain framing and unchecked in the extended one: see CheckOffload.
// The caller may change the frame, until the next call, which invalidates it.
// Next returns io.EOF only when the stream ends between two frames,
// io.ErrUnexpectedEOF when it ends inside one, and ErrFrameSize for a frame that
// cannot be. After an error the stream must be closed. Next allocates nothing.
func (fr *FrameReader) Next() ([]byte, error) {
	for {
		var frame []byte
		var missing bool
		var err error
		if fr.framing == Extended {
			frame, missing, err = fr.cutExtended()
		} else {
			frame, missing, err = fr.cutPlain()
		}
		if frame != nil || err != nil {
			return frame, err
		}
		if !missing {
			continue // control
		}
		if err := fr.fill(); err != nil {
			return nil, err
		}
	}
}

// Ready reports whether the next frame has been read as a whole, so that Next will
// not wait for it. It looks no further than the next record.
func (fr *FrameReader) Ready() bool {
	b := fr.buf[fr.start:fr.end]
	if len(b) < fr.framing.header() {
		return false
	}
	if fr.framing == Plain {
		return len(b) >= plainHeader+int(binary.LittleEndian.Uint16(b))
	}
	word := binary.LittleEndian.Uint32(b)
	return word>>typeShift == typeFrame && len(b) >= extendedHeader+int(word&(1<<typeShift-1))
}

// cutPlain takes the first frame off the buffer, if it is there.
func (fr *FrameReader) cutPlain() (frame []byte, missing bool, err error) {
	b := fr.buf[fr.start:fr.end]
	if len(b) < plainHeader {
		return nil, true, nil
	}
	n := int(binary.LittleEndian.Uint16(b))
	if n < MinFrame || n > fr.limit {
		return nil, false, fr.wrongSize(n)
	}
	if len(b) < plainHeader+n {
		return nil, true, nil
	}
	frame = fr.buf[fr.start-headroom : fr.start+plainHeader+n]
	fr.start += plainHeader + n
	clear(frame[:OffloadHeader])
	return frame, false, nil
}

// cutExtended is cutPlain in the extended framing. Control records are no frames.
func (fr *FrameReader) cutExtended() (frame []byte, missing bool, err error) {
	b := fr.buf[fr.start:fr.end]
	if len(b) < extendedHeader {
		return nil, true, nil
	}
	word := binary.LittleEndian.Uint32(b)
	kind, n := word>>typeShift, int(word&(1<<typeShift-1))
	isFrame := kind == typeFrame && n >= OffloadHeader+MinFrame && n <= OffloadHeader+fr.limit
	if !isFrame && (kind != typeControl || n > maxControl) {
		return nil, false, fr.wrongSize(n - OffloadHeader)
	}
	if len(b) < extendedHeader+n {
		return nil, true, nil
	}
	fr.start += extendedHeader + n
	if isFrame {
		frame = b[extendedHeader : extendedHeader+n]
	} else if fr.control != nil {
		fr.control(b[extendedHeader : extendedHeader+n])
	}
	return frame, false, nil
}

func (fr *FrameReader) wrongSize(n int) error {
	return fmt.Errorf("%w: %d bytes, allowed are %d to %d", ErrFrameSize, n, MinFrame, fr.limit)
}

// fill reads more of the stream. What is left of the buffer is moved to its
// front when a record might not fit behind it.
func (fr *FrameReader) fill() error {
	if fr.err != nil {
		return fr.ended(fr.err)
	}
	if fr.start == fr.end || len(fr.buf)-fr.start < maxRecord {
		fr.end = headroom + copy(fr.buf[headroom:], fr.buf[fr.start:fr.end])
		fr.start = headroom
	}
	n, err := fr.r.Read(fr.buf[fr.end:])
	fr.end += n
	if n > 0 {
		if fr.read != nil {
			fr.read(n)
		}
		fr.err = err
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return fr.ended(err)
}

// ended says what the end of the stream means where it happened.
func (fr *FrameReader) ended(err error) error {
	if err == io.EOF && fr.start == fr.end {
		return err
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("tapstack: read frame: %w", err)
}

// startsWith reports whether what is next on the stream are these bytes.
func (fr *FrameReader) startsWith(text string) bool {
	b := fr.buf[fr.start:fr.end]
	return len(b) >= len(text) && string(b[:len(text)]) == text
}
