package tapstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// connectRequest opens the link: the bytes that gvforwarder and nitriding send,
// so that a host cannot tell us from them (WIRE.md, section 3).
const connectRequest = "POST " + ConnectPath + " HTTP/1.1\r\n" +
	"Host: \r\n" +
	"User-Agent: Go-http-client/1.1\r\n" +
	"Content-Length: 0\r\n" +
	"\r\n"

// errNoReply means that the stream is out of step, or nobody is behind it.
var errNoReply = errors.New("the host does not answer ARP on the link; it may have lost bytes behind the request")

// A stream is one connection to the host, from the request on.
type stream struct {
	conn    net.Conn
	framing Framing
	peer    Capabilities
	frames  *FrameReader
	writing chan struct{}           // holds a token while nobody writes
	pulse   *Pulse                  // only of the extended framing
	ctx     context.Context         // ends with the stream; its cause is why
	fail    context.CancelCauseFunc // ends the stream; the first cause counts
	closed  chan struct{}           // closed when conn is
	replied chan struct{}           // holds one token when the probe was answered
	probing atomic.Bool             // whether a reply is waited for
}

// newStream returns the stream on conn, which is closed when ctx ends or when
// the stream fails. Its framing is not yet chosen.
func newStream(ctx context.Context, conn net.Conn) *stream {
	s := &stream{
		conn:    conn,
		closed:  make(chan struct{}),
		replied: make(chan struct{}, 1),
		writing: make(chan struct{}, 1),
	}
	s.writing <- struct{}{}
	s.ctx, s.fail = context.WithCancelCause(ctx)
	context.AfterFunc(s.ctx, func() {
		conn.Close()
		close(s.closed)
	})
	return s
}

// end closes the stream and waits until it is closed.
func (s *stream) end() {
	s.fail(nil)
	<-s.closed
}

// takeReply reports whether frame is the answer that the probe waits for. A
// reply that nobody asked for proves nothing and is a frame like all others.
func (s *stream) takeReply(frame []byte, addr, gateway netip.Addr) bool {
	if !s.probing.Load() || !isARPReply(frame, addr, gateway) {
		return false
	}
	s.probing.Store(false) // no race: only the one reader of the stream gets here
	s.replied <- struct{}{}
	return true
}

// extend asks the host for the extended link.
func (l *Link) extend(s *stream) error {
	peer, ahead, err := askUpgrade(s.conn, Capabilities{
		Offload: l.cfg.Device.Offloads(), Ping: true, IPv6: l.cfg.IPv6, MaxFrame: MaxFrame, MTU: l.cfg.Device.MTU(),
	})
	if err != nil {
		return err
	}
	if !peer.Offload || peer.MaxFrame < MaxFrame {
		// Frames would have to be finished and cut before they are sent. No host
		// needs that, so it gets what every host takes.
		return fmt.Errorf("%w: it takes %s", errNotSpoken, peer)
	}
	s.framing, s.peer = Extended, peer
	s.frames = NewFrameReader(withAhead(s.conn, ahead), Extended, MaxFrame)
	s.pulse = NewPulse(0)
	s.frames.OnControl(s.pulse.Control)
	return nil
}

// begin requests a plain link. From then on the host may send.
func (l *Link) begin(s *stream) error {
	s.framing, s.peer = Plain, PlainPeer()
	s.peer.MaxFrame = MaxFrame // stock hosts take what the length can say
	s.frames = NewFrameReader(s.conn, Plain, l.maxFrame)
	if err := writeWithin(s.conn, []byte(connectRequest), openTimeout); err != nil {
		return fmt.Errorf("request the link: %w", err)
	}
	return nil
}

// prove shows that frames pass in both directions of a plain link. While it
// waits, downlink frames are already delivered.
func (l *Link) prove(s *stream) error {
	if err := s.wait(settleDelay); !errors.Is(err, errNoReply) {
		return err
	}
	s.probing.Store(true)
	probe := AppendFrame(nil, arpRequest(l.cfg.MAC, l.cfg.Addr, l.cfg.Gateway))
	for range probeAttempts {
		if err := writeWithin(s.conn, probe, openTimeout); err != nil {
			return fmt.Errorf("probe the link: %w", err)
		}
		if err := s.wait(probeTimeout); !errors.Is(err, errNoReply) {
			return err
		}
	}
	return errNoReply
}

// wait returns nil when the probe was answered, errNoReply after d, and why the
// stream ended if it did.
func (s *stream) wait(d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-s.replied:
		return nil
	case <-timer.C:
		return errNoReply
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	}
}
