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

// A stream is one attached link: a connection, or several that carry it together.
// With one of them all end.
type stream struct {
	lanes []*lane
	done  chan struct{} // closed when all goroutines are gone

	once  sync.Once
	cause error // valid after once
}

// A lane is one connection of a stream, with the flows that are its own.
//
//	                    +-- queue 0 --> writer 0 --> connection 0 -->
//	stack --flow hash-->+
//	                    +-- queue 1 --> writer 1 --> connection 1 -->
type lane struct {
	conn    net.Conn
	queue   *queue // once the stream is attached
	counts  *laneCounters
	writing chan struct{} // holds a token while nobody writes: a record must not be cut by another
	pulse   *tapstack.Pulse
}

func (s *Stack) newStream(conns []net.Conn) *stream {
	st := &stream{done: make(chan struct{})}
	for i, conn := range conns {
		l := &lane{conn: conn, counts: &s.lanes[i], writing: make(chan struct{}, 1), pulse: tapstack.NewPulse(s.config.PulseEvery)}
		l.writing <- struct{}{}
		st.lanes = append(st.lanes, l)
	}
	return st
}

// end closes the stream. The first cause wins.
func (st *stream) end(cause error) {
	st.once.Do(func() {
		st.cause = cause
		for _, l := range st.lanes {
			l.conn.Close()
		}
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
	return s.AttachLanes(ctx, []net.Conn{conn}, p)
}

// AttachLanes is Attach for a link of several connections, 1 to tapstack.MaxLanes.
// Each flow to the enclave keeps to one of them. They wait for each other in
// nothing, but when one ends they all do.
func (s *Stack) AttachLanes(ctx context.Context, conns []net.Conn, p Peer) error {
	st := s.newStream(conns)
	old, err := s.replaceStream(st)
	if err != nil {
		st.end(err)
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
	for i, q := range s.card.useLanes(len(st.lanes)) {
		st.lanes[i].queue = q
		q.open()
	}
	var lanes sync.WaitGroup
	for _, l := range st.lanes {
		lanes.Go(func() { s.carry(ctx, st, l, p) })
	}
	lanes.Wait()
	s.forgetStream(st)
	return st.cause
}

// carry exchanges frames over one lane until the stream ends, and ends it when the
// lane does.
func (s *Stack) carry(ctx context.Context, st *stream, l *lane, p Peer) {
	ctx, stop := context.WithCancel(ctx)
	var writers sync.WaitGroup
	writers.Go(func() { st.end(s.writeLane(l, p)) })
	if p.Framing == tapstack.Extended {
		writers.Go(func() { l.pulse.Run(ctx, p.Takes.Ping, l.writeControl, st.end) })
	}
	st.end(s.readLane(l, p.Framing))
	stop()
	l.queue.close()
	writers.Wait()
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

// readLane delivers frames to the stack until the lane fails. It never waits for
// the writer.
func (s *Stack) readLane(l *lane, f tapstack.Framing) error {
	frames := tapstack.NewFrameReader(tapstack.StreamReader(l.conn), f, tapstack.MaxFrame)
	frames.OnControl(l.pulse.Control)
	frames.OnRead(func(n int) { s.reads.Observe(uint64(n)) })
	received := newCoalescer(s.input)
	defer received.flush()
	for {
		frame, err := frames.Next()
		if err != nil {
			return fmt.Errorf("netstack: uplink: %w", err)
		}
		l.pulse.Heard()
		if tapstack.CheckOffload(frame) != nil {
			s.counts.dropOffload.Add(1)
			if !frames.Ready() {
				received.flush()
			}
			continue
		}
		l.counts.uplinkFrames.Add(1)
		l.counts.uplinkBytes.Add(uint64(len(frame) - tapstack.OffloadHeader))
		received.add(frame[tapstack.OffloadHeader:], frames.Ready())
	}
}

// writeLane writes queued packets to the lane until either is closed. What
// gathers while a write is under way leaves with the next one.
func (s *Stack) writeLane(l *lane, p Peer) error {
	w := newWriter(l.conn, s.config.WriteMax, &s.counts)
	e := newEncoder(p, w.socket != nil)
	var spare []*stack.PacketBuffer
	for {
		taken := l.queue.take(spare)
		if taken == nil {
			return nil
		}
		<-l.writing
		err := s.writePackets(l, w, e, taken)
		l.writing <- struct{}{}
		release(taken)
		if err != nil {
			return err
		}
		spare = taken
	}
}

// writeControl writes control records, between two writes of packets.
func (l *lane) writeControl(b []byte) error {
	<-l.writing
	defer func() { l.writing <- struct{}{} }()
	if err := l.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return fmt.Errorf("netstack: downlink: %w", err)
	}
	if _, err := l.conn.Write(b); err != nil {
		return fmt.Errorf("netstack: downlink: %w", err)
	}
	return nil
}

// writePackets writes all packets in as few writes as the buffer allows.
func (s *Stack) writePackets(l *lane, w *writer, e *encoder, packets []*stack.PacketBuffer) error {
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
		l.counts.downlinkFrames.Add(uint64(frames))
		l.counts.downlinkBytes.Add(uint64(bytes))
		l.queue.written(packets[:n])
		packets = packets[n:]
	}
	return nil
}
