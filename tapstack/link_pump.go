package tapstack

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// errDevice marks the failure of the device, after which Run ends.
var errDevice = errors.New("tapstack: device")

// pumpUplink carries frames from the device to whatever stream is up, until ctx
// or the device ends. A frame that could not be sent is sent again on the next
// stream. It waits neither for the downlink nor under a lock.
func (l *Link) pumpUplink(ctx context.Context) error {
	batch := NewBatch(Plain)
	for {
		// Do not read while there is no stream: the device's queue is the place
		// for frames to wait.
		s := l.up(ctx)
		if s == nil {
			return nil
		}
		batch.Reset(s.framing)
		if err := l.cfg.Device.ReadFrames(batch); err != nil {
			return fmt.Errorf("%w: read frames: %w", errDevice, err)
		}
		l.counters.dropTooLong.Add(uint64(batch.tooLong))
		if !l.send(ctx, batch) {
			return nil
		}
	}
}

// send writes the batch to the stream that is up, and what that one did not get
// to the next. It returns false when ctx ends first.
func (l *Link) send(ctx context.Context, b *Batch) bool {
	for {
		s := l.up(ctx)
		if s == nil {
			return false
		}
		if s.framing != b.framing {
			// The host was replaced by one of another kind in between.
			l.counters.dropFraming.Add(uint64(b.frames))
			return true
		}
		err := l.writeBatch(s, b)
		if err == nil {
			l.counters.uplink.add(b.frames, b.bytes)
			return true
		}
		b.rewind()
		s.fail(fmt.Errorf("write to the host: %w", err))
	}
}

// writeBatch writes what is left of the batch, in writes of at most WriteMax.
func (l *Link) writeBatch(s *stream, b *Batch) error {
	if !s.enter() {
		return context.Cause(s.ctx)
	}
	defer s.leave()
	for {
		piece := b.Unsent()
		if len(piece) == 0 {
			return nil
		}
		if limit := l.cfg.WriteMax; limit > 0 && len(piece) > limit {
			piece = piece[:limit]
		}
		n, err := s.conn.Write(piece)
		b.wrote(n)
		l.counters.writes.Add(1)
		if err != nil {
			return err
		}
	}
}

// enter waits until nobody writes to the stream; records must not be cut by each
// other. It returns false when the stream ends first.
func (s *stream) enter() bool {
	select {
	case <-s.writing:
		return true
	case <-s.ctx.Done():
		return false
	}
}

func (s *stream) leave() { s.writing <- struct{}{} }

// writeControl writes control records, between two writes of the uplink.
func (s *stream) writeControl(b []byte) error {
	if !s.enter() {
		return context.Cause(s.ctx)
	}
	defer s.leave()
	if _, err := s.conn.Write(b); err != nil {
		return fmt.Errorf("write to the host: %w", err)
	}
	return nil
}

// pumpDownlink carries frames from the stream to the device until either ends.
// A frame that is wrong, or that the device refuses, is dropped and counted: what
// is in it is the host's, and no reason to lose the link.
func (l *Link) pumpDownlink(s *stream) error {
	for {
		frame, err := s.frames.Next()
		if err != nil {
			return explainDownlink(s.frames, err)
		}
		if s.pulse != nil {
			s.pulse.Heard()
		}
		if s.takeReply(frame[OffloadHeader:], l.cfg.Addr, l.cfg.Gateway) {
			continue
		}
		if CheckOffload(frame) != nil {
			l.counters.dropOffload.Add(1)
			continue
		}
		err = l.cfg.Device.WriteFrame(frame)
		if isClosed(err) {
			return fmt.Errorf("%w: write frame: %w", errDevice, err)
		}
		if err != nil {
			l.counters.dropRefused.Add(1)
			continue
		}
		l.counters.downlink.add(1, len(frame)-OffloadHeader)
	}
}

// explainDownlink says what the end of the downlink means.
func explainDownlink(frames *FrameReader, err error) error {
	if err == io.EOF {
		return errors.New("the host closed the link")
	}
	if errors.Is(err, ErrFrameSize) && frames.startsWith("HT") {
		return fmt.Errorf("the host answered in HTTP, so it refused the link or is no gateway: %w", err)
	}
	return err
}
