package tapstack

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Every frame on the stream is (WIRE.md, section 4)
//
//	 0        2                      2+n
//	+--------+------------------------+
//	| n (LE) | Ethernet frame, n bytes|   MinFrame <= n <= MaxFrame
//	+--------+------------------------+
const (
	// MinFrame is the length of the shortest frame: an Ethernet header alone.
	MinFrame = 14
	// MaxFrame is the length of the longest frame that the length field can say.
	MaxFrame = 65535
	// frameHeader is the size of the length field.
	frameHeader = 2
	// streamBuffer is how many bytes one read of the stream takes at most: a
	// read costs the same for one small frame as for forty full ones.
	streamBuffer = 64 << 10
)

// ErrFrameSize reports a frame length below MinFrame or above what the reader
// accepts. The stream has lost its framing: close it.
var ErrFrameSize = errors.New("tapstack: frame size out of range")

// AppendFrame appends frame with its length in front to dst and returns the
// extended slice. It panics if the frame is outside MinFrame..MaxFrame: what is
// sent comes from one's own device, whose limits the caller has checked.
func AppendFrame(dst, frame []byte) []byte {
	if len(frame) < MinFrame || len(frame) > MaxFrame {
		panic(fmt.Sprintf("tapstack: AppendFrame with %d bytes", len(frame)))
	}
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(frame)))
	return append(dst, frame...)
}

// A FrameReader cuts a stream into frames. It reads ahead, so nothing else may
// read from the stream. It is not safe for concurrent use.
type FrameReader struct {
	r *bufio.Reader
}

// NewFrameReader returns a reader of the frames on r.
func NewFrameReader(r io.Reader) *FrameReader {
	return &FrameReader{r: bufio.NewReaderSize(r, streamBuffer)}
}

// ReadFrame reads one frame into buf and returns its length. The length of buf
// is the limit: a longer frame is ErrFrameSize. It returns io.EOF only when the
// stream ends between two frames, and io.ErrUnexpectedEOF when it ends inside
// one. After an error the stream must be closed. ReadFrame allocates nothing.
func (fr *FrameReader) ReadFrame(buf []byte) (int, error) {
	header, err := fr.r.Peek(frameHeader)
	if err != nil {
		if err == io.EOF && len(header) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return 0, unlessEOF("read frame length", err)
	}
	n := int(binary.LittleEndian.Uint16(header))
	if n < MinFrame || n > len(buf) {
		return 0, fmt.Errorf("%w: %d bytes, allowed are %d to %d", ErrFrameSize, n, MinFrame, min(len(buf), MaxFrame))
	}
	if _, err := fr.r.Discard(frameHeader); err != nil {
		return 0, unlessEOF("read frame length", err)
	}
	if _, err := io.ReadFull(fr.r, buf[:n]); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, unlessEOF("read frame", err)
	}
	return n, nil
}

// Buffered returns how many bytes of following frames were already read from
// the stream, so that a caller that batches knows whether to wait for more.
func (fr *FrameReader) Buffered() int { return fr.r.Buffered() }

// unlessEOF puts doing before err, except before io.EOF, which callers compare.
func unlessEOF(doing string, err error) error {
	if err == io.EOF {
		return err
	}
	return fmt.Errorf("tapstack: %s: %w", doing, err)
}
