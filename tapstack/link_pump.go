package tapstack

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// errDevice marks the failure of the device, after which Run ends.
var errDevice = errors.New("tapstack: device")

// httpLength is what the start of an HTTP answer, "HT", reads as.
const httpLength = 'H' | 'T'<<8

// pumpUplink carries frames from the device to whatever stream is up, until ctx
// or the device ends. A frame that could not be sent is sent again on the next
// stream. It waits neither for the downlink nor under a lock.
func (l *Link) pumpUplink(ctx context.Context) error {
	// One byte more than a frame may have shows a frame that does not fit.
	buf := make([]byte, frameHeader+l.maxFrame+1)
	for {
		// Do not read while there is no stream: the device's queue is the place
		// for frames to wait.
		if l.up(ctx) == nil {
			return nil
		}
		n, err := l.cfg.Device.ReadFrame(buf[frameHeader:])
		if err != nil {
			return fmt.Errorf("%w: read frame: %w", errDevice, err)
		}
		if n < MinFrame || n > l.maxFrame {
			l.counters.drops.Add(1)
			continue
		}
		binary.LittleEndian.PutUint16(buf, uint16(n))
		if !l.send(ctx, buf[:frameHeader+n]) {
			return nil
		}
		l.counters.uplink.add(n)
	}
}

// send writes one frame with its length to the stream that is up, and to the
// next if that one fails. It returns false when ctx ends first.
func (l *Link) send(ctx context.Context, b []byte) bool {
	for {
		s := l.up(ctx)
		if s == nil {
			return false
		}
		_, err := s.conn.Write(b)
		if err == nil {
			return true
		}
		s.fail(fmt.Errorf("write to the host: %w", err))
	}
}

// pumpDownlink carries frames from the stream to the device until either ends.
// A frame that the device refuses is dropped and counted: what is in it is the
// host's, and no reason to lose the link.
func (l *Link) pumpDownlink(s *stream) error {
	frames := NewFrameReader(s.conn)
	buf := make([]byte, l.maxFrame)
	for {
		n, err := frames.ReadFrame(buf)
		if err != nil {
			return explainDownlink(frames, err)
		}
		if s.takeReply(buf[:n], l.cfg.Addr, l.cfg.Gateway) {
			continue
		}
		err = l.cfg.Device.WriteFrame(buf[:n])
		if isClosed(err) {
			return fmt.Errorf("%w: write frame: %w", errDevice, err)
		}
		if err != nil {
			l.counters.drops.Add(1)
			continue
		}
		l.counters.downlink.add(n)
	}
}

// explainDownlink says what the end of the downlink means.
func explainDownlink(frames *FrameReader, err error) error {
	if err == io.EOF {
		return errors.New("the host closed the link")
	}
	if errors.Is(err, ErrFrameSize) && frames.answeredHTTP() {
		return fmt.Errorf("the host answered in HTTP, so it refused the link or is no gateway: %w", err)
	}
	return err
}

// answeredHTTP reports whether what is next on the stream is no frame but the
// start of an HTTP answer.
func (fr *FrameReader) answeredHTTP() bool {
	header, err := fr.r.Peek(frameHeader)
	return err == nil && binary.LittleEndian.Uint16(header) == httpLength
}
