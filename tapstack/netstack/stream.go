package netstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/corridor-enclave/corridor/tapstack"
)

// writeTimeout is how long the enclave may refuse to take a single byte before
// its stream is given up. A stream that is stuck for good would otherwise hold
// every flow until the kernel notices, which for VSOCK is never.
const writeTimeout = 30 * time.Second

var (
	// ErrReplaced reports that a newer stream took over. The caller has nothing
	// to do: the Stack lives on with the newer one.
	ErrReplaced = errors.New("netstack: replaced by a newer stream")
	// ErrStalled reports that the enclave took no byte for too long. The stream
	// is closed; the enclave is expected to open a new one.
	ErrStalled = errors.New("netstack: the enclave takes no frames")
)

// A stream is one attached connection.
type stream struct {
	conn    net.Conn
	done    chan struct{} // closed when all goroutines are gone
	writing chan struct{} // holds a token while nobody writes: a record must not be cut by another
	pulse   *tapstack.Pulse

	once  sync.Once
	cause error // valid after once
}

// end closes the stream. The first cause wins.
func (st *stream) end(cause error) {
	st.once.Do(func() {
		st.cause = cause
		st.conn.Close()
	})
}

// Attach exchanges frames with the enclave p over conn until the stream ends, and
// closes it. It returns nil when ctx ended it, ErrReplaced when a newer Attach
// did, ErrClosed when the Stack is closed, and otherwise why the stream cannot
// be used any more: io.EOF for an orderly end, tapstack.ErrFrameSize when the
// enclave lost the framing, ErrStalled, tapstack.ErrSilent, or an error of the
// connection. After
// any of them another stream may be attached.
func (s *Stack) Attach(ctx context.Context, conn net.Conn, p Peer) error {
	st := &stream{conn: conn, done: make(chan struct{}), writing: make(chan struct{}, 1), pulse: tapstack.NewPulse(s.config.PulseEvery)}
	st.writing <- struct{}{}
	old, err := s.replaceStream(st)
	if err != nil {
		conn.Close()
		return err
	}
	if old != nil {
		old.end(ErrReplaced)
		<-old.done
	}
	defer close(st.done)
	defer context.AfterFunc(ctx, func() { st.end(nil) })()

	s.counts.streams.Add(1)
	s.ipv6.Store(s.config.IPv6 && p.Takes.IPv6)
	s.card.SetMTU(uint32(min(s.mtu, p.Takes.MTU)))
	s.card.queue.open()
	var writer sync.WaitGroup
	writer.Go(func() {
		st.end(s.writeStream(st, p))
	})
	pulseCtx, stopPulse := context.WithCancel(ctx)
	if p.Framing == tapstack.Extended {
		writer.Go(func() { st.pulse.Run(pulseCtx, p.Takes.Ping, st.writeControl, st.end) })
	}
	st.end(s.readStream(st, p.Framing))
	stopPulse()
	s.card.queue.close()
	writer.Wait()
	s.forgetStream(st)
	return st.cause
}

// Attached reports whether a stream is attached now.
func (s *Stack) Attached() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stream != nil
}

func (s *Stack) replaceStream(st *stream) (old *stream, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	old, s.stream = s.stream, st
	return old, nil
}

// forgetStream is for the stream that was not replaced.
func (s *Stack) forgetStream(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stream == st {
		s.stream = nil
	}
}

// readStream delivers frames to the stack until the stream fails. It never
// waits for the writer.
func (s *Stack) readStream(st *stream, f tapstack.Framing) error {
	frames := tapstack.NewFrameReader(st.conn, f, tapstack.MaxFrame)
	frames.OnControl(st.pulse.Control)
	frames.OnRead(func(n int) { s.reads.Observe(uint64(n)) })
	received := newCoalescer(s.input)
	defer received.flush()
	for {
		frame, err := frames.Next()
		if err != nil {
			return fmt.Errorf("netstack: uplink: %w", err)
		}
		st.pulse.Heard()
		if tapstack.CheckOffload(frame) != nil {
			s.counts.dropOffload.Add(1)
			if !frames.Ready() {
				received.flush()
			}
			continue
		}
		s.counts.uplinkFrames.Add(1)
		s.counts.uplinkBytes.Add(uint64(len(frame) - tapstack.OffloadHeader))
		received.add(frame[tapstack.OffloadHeader:], frames.Ready())
	}
}

// writeStream writes queued packets to the stream until either is closed. What
// gathers while a write is under way leaves with the next one.
func (s *Stack) writeStream(st *stream, p Peer) error {
	w := newWriter(st.conn, s.config.WriteMax, &s.counts)
	e := newEncoder(p, w.raw != nil)
	var spare []*stack.PacketBuffer
	for {
		taken := s.card.queue.take(spare)
		if taken == nil {
			return nil
		}
		<-st.writing
		err := s.writePackets(w, e, taken)
		st.writing <- struct{}{}
		release(taken)
		if err != nil {
			return err
		}
		spare = taken
	}
}

// writeControl writes control records, between two writes of packets.
func (st *stream) writeControl(b []byte) error {
	<-st.writing
	defer func() { st.writing <- struct{}{} }()
	if err := st.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return fmt.Errorf("netstack: downlink: %w", err)
	}
	if _, err := st.conn.Write(b); err != nil {
		return fmt.Errorf("netstack: downlink: %w", err)
	}
	return nil
}

// writePackets writes all packets in as few writes as the buffer allows.
func (s *Stack) writePackets(w *writer, e *encoder, packets []*stack.PacketBuffer) error {
	for len(packets) > 0 {
		e.reset()
		frames, bytes, n := 0, 0, 0
		for n < len(packets) && e.size() < writeBuffer {
			p := packets[n]
			count := e.add(p)
			if count == 0 {
				s.counts.dropTooLong.Add(1)
			} else {
				bytes += p.Size()
			}
			frames += count
			n++
		}
		s.gathered.Observe(uint64(e.size()))
		if err := w.writeAll(e.gathered()); err != nil {
			s.counts.dropNoStream.Add(uint64(len(packets)))
			return err
		}
		s.counts.downlinkFrames.Add(uint64(frames))
		s.counts.downlinkBytes.Add(uint64(bytes))
		s.card.queue.written(packets[:n])
		packets = packets[n:]
	}
	return nil
}
