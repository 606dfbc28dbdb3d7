package tapstack

import (
	"errors"
	"io"
	"time"

	"github.com/corridor-enclave/corridor/tapstack/exposition"
)

// errHostClosed is the end of a stream between two frames.
var errHostClosed = errors.New("the host closed the link")

// LinkSizes are how much passes a Link at a time, since it was made.
type LinkSizes struct {
	Frames exposition.Snapshot // of the device that were ready, and left together
	Bytes  exposition.Snapshot // that those were
	Reads  exposition.Snapshot // bytes of a read of the stream
}

// LinkLosses count the streams that were up and ended, by cause.
type LinkLosses struct {
	Closed  uint64 // the host closed between two frames
	Cut     uint64 // it ended inside a frame
	Framing uint64 // what came is no frame
	Silent  uint64 // nothing came, not even when asked
	Other   uint64 // a read or a write failed
}

// sizes are the live form of LinkSizes.
type sizes struct{ frames, bytes, reads *exposition.Histogram }

func newSizes() sizes {
	return sizes{frames: exposition.NewCounts(), bytes: exposition.NewSizes(), reads: exposition.NewSizes()}
}

func (s *sizes) snapshot() LinkSizes {
	return LinkSizes{Frames: s.frames.Snapshot(), Bytes: s.bytes.Snapshot(), Reads: s.reads.Snapshot()}
}

// gathered counts what the device gave at a time.
func (l *Link) gathered(b *Batch, counters *counters) {
	counters.dropTooLong.Add(uint64(b.tooLong))
	counters.dropTooShort.Add(uint64(b.tooShort))
	counters.dropNeighbour.Add(uint64(b.forNeighbour))
	counters.waiting.Store(int64(len(b.Unsent())))
	l.sizes.frames.Observe(uint64(b.frames))
	l.sizes.bytes.Observe(uint64(b.bytes))
}

// read counts a read of a stream.
func (l *Link) read(n int) { l.sizes.reads.Observe(uint64(n)) }

// ended counts the end of a stream, or of an attempt to get one up.
func (l *Link) ended(up time.Duration, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	losses := &l.status.Losses
	switch {
	case up == 0:
		l.status.Failures++
	case errors.Is(err, errHostClosed):
		losses.Closed++
	case errors.Is(err, io.ErrUnexpectedEOF):
		losses.Cut++
	case errors.Is(err, ErrFrameSize):
		losses.Framing++
	case errors.Is(err, ErrSilent):
		losses.Silent++
	default:
		losses.Other++
	}
}
