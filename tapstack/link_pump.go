package tapstack

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// errDevice marks the failure of the device, after which Run ends.
var errDevice = errors.New("tapstack: device")

// pumpUplink carries frames from one queue of the device to its lane of whatever
// link is up, until ctx or the device ends. A frame that could not be sent is sent again on the next
// stream. It waits neither for the downlink nor under a lock.
func (l *Link) pumpUplink(ctx context.Context, queue int) error {
	counters := &l.counters[queue]
	batch := NewBatch(Plain)
	for {
		// Do not read while there is no stream: the device's queue is the place
		// for frames to wait.
		s := l.up(ctx)
		if s == nil {
			return nil
		}
		batch.Reset(s.framing)
		if err := l.queues[queue].ReadFrames(batch); err != nil {
			return fmt.Errorf("%w: read frames: %w", errDevice, err)
		}
		l.gathered(batch, counters)
		if !l.send(ctx, batch, queue) {
			return nil
		}
		counters.waiting.Store(0)
	}
}

// send writes the batch to the stream that is up, and what that one did not get
// to the next. It returns false when ctx ends first.
func (l *Link) send(ctx context.Context, b *Batch, queue int) bool {
	counters := &l.counters[queue]
	for {
		s := l.up(ctx)
		if s == nil {
			return false
		}
		if s.framing != b.framing {
			// The host was replaced by one of another kind in between.
			counters.dropFraming.Add(uint64(b.frames))
			return true
		}
		err := l.writeBatch(s.laneOf(queue), b, counters)
		if err == nil {
			counters.uplink.add(b.frames, b.bytes)
			return true
		}
		b.rewind()
		s.fail(fmt.Errorf("write to the host: %w", err))
	}
}

// laneOf is where the frames of a queue go. Where there are fewer lanes than queues,
// as to hosts of others, some share one.
func (s *stream) laneOf(queue int) *stream { return s.lanes[queue%len(s.lanes)] }

// writeBatch writes what is left of the batch, in writes of at most WriteMax.
func (l *Link) writeBatch(s *stream, b *Batch, counters *counters) error {
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
		n, err := s.out.Write(piece)
		b.wrote(n)
		counters.writes.Add(1)
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
	if _, err := s.out.Write(b); err != nil {
		return fmt.Errorf("write to the host: %w", err)
	}
	return nil
}

// pumpDownlink carries frames from a lane to its queue of the device until either ends.
// A frame that is wrong, or that the device refuses, is dropped and counted: what
// is in it is the host's, and no reason to lose the link.
func (l *Link) pumpDownlink(s *stream, lane int) error {
	counters, device := &l.counters[lane], l.queues[lane]
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
			counters.dropOffload.Add(1)
			continue
		}
		err = device.WriteFrame(frame)
		if isClosed(err) {
			return fmt.Errorf("%w: write frame: %w", errDevice, err)
		}
		if err != nil {
			counters.dropRefused.Add(1)
			continue
		}
		counters.downlink.add(1, len(frame)-OffloadHeader)
	}
}

// explainDownlink says what the end of the downlink means.
func explainDownlink(frames *FrameReader, err error) error {
	if err == io.EOF {
		return errHostClosed
	}
	if errors.Is(err, ErrFrameSize) && frames.startsWith("HT") {
		return fmt.Errorf("the host answered in HTTP, so it refused the link or is no gateway: %w", err)
	}
	return err
}
