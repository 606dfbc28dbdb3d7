package tapstack

import (
	"context"
	"errors"
	"fmt"
	"io"
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

// A stream is one connection to the host, from the request on. A link has several
// where both ends take them: the first one has the others as its lanes, and with
// any of them all end.
type stream struct {
	conn    net.Conn
	out     io.Writer // to conn; for who holds the token of writing
	lanes   []*stream // of the first one only, which is among them
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
	s := &stream{}
	s.ctx, s.fail = context.WithCancelCause(ctx)
	s.open(conn)
	s.lanes = []*stream{s}
	return s
}

// join returns a further lane, on conn.
func (s *stream) join(conn net.Conn) *stream {
	lane := &stream{ctx: s.ctx, fail: s.fail}
	lane.open(conn)
	s.lanes = append(s.lanes, lane)
	return lane
}

// open makes conn the stream's, closed when ctx ends.
func (s *stream) open(conn net.Conn) {
	s.conn, s.out = conn, StreamWriter(conn)
	s.closed = make(chan struct{})
	s.replied = make(chan struct{}, 1)
	s.writing = make(chan struct{}, 1)
	s.writing <- struct{}{}
	context.AfterFunc(s.ctx, func() {
		conn.Close()
		close(s.closed)
	})
}

// end closes the stream with all its lanes, and waits until they are closed.
func (s *stream) end() {
	s.fail(nil)
	for _, lane := range s.lanes {
		<-lane.closed
	}
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
	return l.extendAs(s, l.capabilities())
}

// capabilities is what the enclave says in its first request.
func (l *Link) capabilities() Capabilities {
	c := Capabilities{
		Offload: l.cfg.Device.Offloads(), Ping: true, IPv6: l.cfg.IPv6, MaxFrame: MaxFrame, MTU: l.cfg.Device.MTU(),
	}
	if len(l.queues) > 1 {
		c.Lanes = len(l.queues)
	}
	return c
}

// addLanes opens as many further lanes as both ends take. A host that names no link
// takes one.
func (l *Link) addLanes(first *stream) error {
	own := l.capabilities()
	if first.peer.Link == "" {
		return nil
	}
	count := AgreedLanes(own, first.peer)
	own.Lanes, own.Link = 0, first.peer.Link
	for i := 1; i < count; i++ {
		ctx, cancel := context.WithTimeout(first.ctx, dialTimeout)
		conn, err := l.cfg.Dial(ctx)
		cancel()
		if err != nil {
			return fmt.Errorf("connect to the host for lane %d: %w", i, err)
		}
		if err := l.extendAs(first.join(conn), own); err != nil {
			// Not %w: a host that refuses a lane does speak the extended link.
			return fmt.Errorf("open lane %d: %v", i, err)
		}
	}
	return nil
}

// extendAs asks the host for an extended stream, and says what the enclave takes.
func (l *Link) extendAs(s *stream, own Capabilities) error {
	peer, ahead, err := askUpgrade(s.conn, own)
	if err != nil {
		return err
	}
	if !peer.Offload || peer.MaxFrame < MaxFrame {
		// Frames would have to be finished and cut before they are sent. No host
		// needs that, so it gets what every host takes.
		return fmt.Errorf("%w: it takes %s", errNotSpoken, peer)
	}
	s.framing, s.peer = Extended, peer
	s.frames = NewFrameReader(StreamReader(withAhead(s.conn, ahead)), Extended, MaxFrame)
	s.pulse = NewPulse(0)
	s.frames.OnControl(s.pulse.Control)
	s.frames.OnRead(l.read)
	return nil
}

// begin requests a plain link. From then on the host may send.
func (l *Link) begin(s *stream) error {
	s.framing, s.peer = Plain, PlainPeer()
	s.peer.MaxFrame = MaxFrame // stock hosts take what the length can say
	s.frames = NewFrameReader(StreamReader(s.conn), Plain, l.maxFrame)
	s.frames.OnRead(l.read)
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
