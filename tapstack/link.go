package tapstack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"
)

// The times of the link. They are part of what WIRE.md promises.
const (
	// settleDelay is how long the first frame waits behind the request, so that
	// a stock host does not find it in its HTTP server's buffer and drop it.
	settleDelay = 50 * time.Millisecond
	// probeTimeout is how long one ARP probe waits for its reply.
	probeTimeout = 500 * time.Millisecond
	// probeAttempts is how many probes a stream gets.
	probeAttempts = 3
	// dialTimeout bounds one attempt to connect, whatever Dial does itself.
	dialTimeout = 5 * time.Second
	// openTimeout bounds each write before the link is up.
	openTimeout = 2 * time.Second
	// minBackoff and maxBackoff bound the delay before the next attempt.
	minBackoff = 10 * time.Millisecond
	maxBackoff = time.Second
)

// LinkConfig is what a Link is made of. Device, Dial and Log are required.
type LinkConfig struct {
	// Device is the enclave's end of the network. The Link owns it from
	// NewLink on: Run closes it before it returns.
	Device Device
	// Queues are further queues of the same device, which the Link owns as well.
	// Each is for a lane of its own, if the host takes several: what a lane brings
	// is written to its queue, and what a queue gives goes to its lane. The kernel
	// sends a flow to the queue that last brought something of it, so that flows
	// stay on the lane that the host chose.
	Queues []Device
	// Dial opens a new stream to the host. It must respect its context.
	Dial func(context.Context) (net.Conn, error)
	// Addr is the enclave's IPv4 address on the link; zero is EnclaveAddr.
	Addr netip.Addr
	// Gateway is the host's IPv4 address on the link; zero is GatewayAddr.
	Gateway netip.Addr
	// MAC is the hardware address of Device; nil is EnclaveMAC.
	MAC net.HardwareAddr
	// Plain keeps to the link of gvproxy: the extended one is not asked for.
	Plain bool
	// IPv6 says that the enclave's end takes IPv6.
	IPv6 bool
	// Up, if not nil, is called each time before the link comes up, with what the
	// host says about itself. The link waits for it.
	Up func(Capabilities)
	// WriteMax is the most bytes that one write to the stream may have; 0 is no
	// limit. Frames are cut by it without regard, since a stream has no borders.
	WriteMax int
	// Log gets one line for each distinct error of an outage, and one when the
	// link comes up.
	Log *slog.Logger
}

// validate fills the defaults in and reports every mistake at once.
func (c *LinkConfig) validate() error {
	if !c.Addr.IsValid() {
		c.Addr = EnclaveAddr()
	}
	if !c.Gateway.IsValid() {
		c.Gateway = GatewayAddr()
	}
	if c.MAC == nil {
		c.MAC = EnclaveMAC()
	}
	var errs []error
	if c.Dial == nil {
		errs = append(errs, errors.New("no Dial"))
	}
	if c.Log == nil {
		errs = append(errs, errors.New("no Log"))
	}
	if !c.Addr.Is4() || !c.Gateway.Is4() {
		errs = append(errs, fmt.Errorf("address %s and gateway %s must be IPv4", c.Addr, c.Gateway))
	}
	if len(c.MAC) != macLen {
		errs = append(errs, fmt.Errorf("MAC %s has %d bytes, not %d", c.MAC, len(c.MAC), macLen))
	}
	if c.Device == nil {
		errs = append(errs, errors.New("no Device"))
	} else if mtu := c.Device.MTU(); mtu < 1 || mtu > MaxFrame-MinFrame {
		errs = append(errs, fmt.Errorf("device MTU %d is outside 1 to %d", mtu, MaxFrame-MinFrame))
	}
	if len(c.Queues) >= MaxLanes {
		errs = append(errs, fmt.Errorf("%d queues, at most %d can have a lane", 1+len(c.Queues), MaxLanes))
	}
	if c.WriteMax < 0 {
		errs = append(errs, fmt.Errorf("largest write of %d bytes", c.WriteMax))
	}
	return errors.Join(errs...)
}

// A Link is the enclave's end: it moves frames between its device and a stream
// to the host, and replaces the stream whenever it is lost, while the device,
// its addresses and the connections of the app stay.
//
//	                     Run
//	                      v      request
//	+---------+ delay +---------+ stream  +---------+ ARP reply +----+
//	| waiting | ----> | dialing | ------> | proving | --------> | up |
//	+---------+       +---------+  plain  +---------+           +----+
//	     ^                 |  |                | no reply        ^ | stream lost
//	     |                 |  +----------------|-----------------+ |
//	     |                 |     extended: the host answered 101   |
//	     +-----------------+-------------------+-------------------+
//	        no stream
//
// In every state the end of ctx, or of the device, leads to the end of Run.
// Uplink frames are read from the device only while the link is up: in an
// outage they wait in the device's own queue, which drops the rest. Downlink
// frames are delivered from the request on, because a host that knows the
// enclave from before may send at once.
type Link struct {
	cfg      LinkConfig
	maxFrame int // of the device: its MTU and the Ethernet header
	queues   []Device
	counters [MaxLanes]counters // of queues and lanes
	sizes    sizes
	outage   outage // only connect's goroutine touches it

	mu      sync.Mutex
	stream  *stream       // the one that is up; nil in an outage. Guarded by mu.
	changed chan struct{} // closed and replaced when stream changes. Guarded by mu.
	status  LinkStatus    // what is not in counters. Guarded by mu.
}

// NewLink returns a Link that is down until Run. It reports every mistake in
// the configuration at once.
func NewLink(c LinkConfig) (*Link, error) {
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("tapstack: new link: %w", err)
	}
	c.MAC = slices.Clone(c.MAC)
	return &Link{
		cfg:      c,
		maxFrame: c.Device.MTU() + MinFrame,
		queues:   append([]Device{c.Device}, c.Queues...),
		changed:  make(chan struct{}),
		outage:   newOutage(c.Log),
		sizes:    newSizes(),
		status:   LinkStatus{Since: time.Now()},
	}, nil
}

// Run keeps the link up until ctx ends, and then returns nil. It returns an
// error only if the device fails, since without it there is nothing to carry. A
// missing or failing host is not an error: Run says so in the log and tries
// again. Run may be called once; it closes the device.
func (l *Link) Run(ctx context.Context) error {
	linkCtx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var uplink sync.WaitGroup
	for i := range l.queues {
		uplink.Go(func() { fail(l.pumpUplink(linkCtx, i)) })
	}
	l.connect(linkCtx, fail)
	closeErr := l.closeQueues()
	uplink.Wait()
	if ctx.Err() != nil {
		return closeErr
	}
	return errors.Join(context.Cause(linkCtx), closeErr)
}

// connect opens one stream after the other until ctx ends. deviceFailed gets
// the reason when the device, not the stream, is what failed.
func (l *Link) connect(ctx context.Context, deviceFailed context.CancelCauseFunc) {
	var delay backoff
	for ctx.Err() == nil {
		up, err := l.session(ctx, deviceFailed)
		if ctx.Err() != nil {
			return
		}
		l.ended(up, err)
		l.lost(err)
		if up >= maxBackoff {
			delay = backoff{}
		}
		select {
		case <-time.After(delay.next()):
		case <-ctx.Done():
		}
	}
}

// session makes one stream and serves it to its end. It returns how long the
// link was up on it, and why it ended.
func (l *Link) session(ctx context.Context, deviceFailed context.CancelCauseFunc) (up time.Duration, err error) {
	s, err := l.request(ctx)
	if err != nil {
		return 0, err
	}
	defer s.end()

	var downlink sync.WaitGroup
	defer downlink.Wait()
	defer s.fail(nil) // before Wait: it ends the pump
	for i, lane := range s.lanes {
		downlink.Go(func() {
			err := l.pumpDownlink(lane, i)
			if errors.Is(err, errDevice) {
				deviceFailed(err)
			}
			s.fail(err)
		})
		if s.framing == Extended {
			downlink.Go(func() { lane.pulse.Run(s.ctx, lane.peer.Ping, lane.writeControl, s.fail) })
		}
	}
	if s.framing == Plain {
		if err := l.prove(s); err != nil {
			s.fail(err)
			return 0, context.Cause(s.ctx)
		}
	}
	if l.cfg.Up != nil {
		l.cfg.Up(s.peer)
	}
	since := time.Now()
	l.publish(s)
	<-s.ctx.Done()
	l.publish(nil)
	return max(time.Since(since), 1), context.Cause(s.ctx) // 0 is a link that was never up
}

// request returns a stream on which the link was requested: extended if the host
// speaks that, else plain, on a second connection.
func (l *Link) request(ctx context.Context) (*stream, error) {
	if !l.cfg.Plain {
		s, err := l.dial(ctx, l.extend)
		if err == nil {
			err = l.addLanes(s)
		}
		if err == nil {
			return s, nil
		}
		if s != nil {
			s.end()
		}
		if !errors.Is(err, errNotSpoken) {
			return nil, err
		}
	}
	return l.dial(ctx, l.begin)
}

// dial connects to the host and requests the link.
func (l *Link) dial(ctx context.Context, request func(*stream) error) (*stream, error) {
	dialCtx, cancel := context.WithTimeout(ctx, dialTimeout)
	conn, err := l.cfg.Dial(dialCtx)
	cancel()
	if err != nil {
		return nil, fmt.Errorf("connect to the host: %w", err)
	}
	s := newStream(ctx, conn)
	if err := request(s); err != nil {
		s.end()
		return nil, err
	}
	return s, nil
}

// lost notes the end of a stream, or of an attempt.
func (l *Link) lost(err error) {
	l.outage.add(err)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.status.LastError = err.Error()
}

// publish makes s the stream of the uplink; nil means that there is none.
func (l *Link) publish(s *stream) {
	if s != nil {
		l.outage.over(s)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stream = s
	close(l.changed)
	l.changed = make(chan struct{})
	l.status.Since = time.Now()
	l.status.Extended, l.status.Lanes = false, 0
	if l.status.Connected = s != nil; l.status.Connected {
		l.status.Connects++
		l.status.LastError = ""
		l.status.Extended, l.status.Lanes = s.framing == Extended, len(s.lanes)
	}
}

// up waits for a stream that is up. It returns nil when ctx ends first.
func (l *Link) up(ctx context.Context) *stream {
	for {
		l.mu.Lock()
		s, changed := l.stream, l.changed
		l.mu.Unlock()
		if s != nil && s.ctx.Err() == nil {
			return s
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// closeQueues wakes those who read or write the device.
func (l *Link) closeQueues() error {
	var errs []error
	for _, q := range l.queues {
		errs = append(errs, unlessClosed(q.Close()))
	}
	return errors.Join(errs...)
}

// unlessClosed drops the error of what was closed already.
func unlessClosed(err error) error {
	if isClosed(err) {
		return nil
	}
	return err
}

func isClosed(err error) bool {
	return errors.Is(err, os.ErrClosed) || errors.Is(err, net.ErrClosed)
}
