package gateway

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/corridor-enclave/corridor/tapstack/netstack"
	"github.com/corridor-enclave/corridor/tapstack/relay"
)

const (
	// maxUDPFlows bounds the UDP flows of one enclave. When there are more, the
	// one that was silent for longest goes.
	maxUDPFlows = 1024
	// A flow without datagrams ends after these times. A DNS query is answered
	// at once or never; other protocols expect what RFC 4787 (REQ-5) recommends
	// of a NAT.
	dnsIdle = 30 * time.Second
	udpIdle = 2 * time.Minute
	// sweepEvery is how often silent flows are looked for.
	sweepEvery = 5 * time.Second
)

// udpFlows are the pairs of addresses that an enclave exchanges datagrams
// between.
type udpFlows struct {
	network *network
	running sync.WaitGroup

	total, refused, failed, evicted atomic.Uint64

	mu     sync.Mutex
	closed bool
	flows  map[*udpFlow]struct{}
}

// A udpFlow is one pair, with a socket of its own on the host.
type udpFlow struct {
	inside, outside net.Conn
	idle            time.Duration
	last            atomic.Int64 // when the last datagram passed, in Unix nanoseconds
}

func newUDPFlows(n *network) *udpFlows {
	return &udpFlows{network: n, flows: map[*udpFlow]struct{}{}}
}

// handle takes a new flow, or leaves it to be answered with port unreachable. It
// runs on the goroutine that reads the link and waits for nothing.
func (u *udpFlows) handle(f *netstack.UDPFlow) {
	to, no := u.network.policy.route(f.Destination)
	if no.cause != causeNone {
		u.refused.Add(1)
		u.network.refusals.note("udp", f.Destination.String(), no)
		return
	}
	outside, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		u.failed.Add(1)
		u.network.log.Debug("destination not reached", "protocol", "udp", "destination", f.Destination.String(), "err", err)
		return
	}
	inside, err := f.Accept()
	if err != nil {
		outside.Close()
		u.failed.Add(1)
		return
	}
	flow := &udpFlow{inside: inside, outside: outside, idle: udpIdle}
	if f.Destination.Port() == 53 {
		flow.idle = dnsIdle
	}
	u.start(flow)
}

// start adds the flow, in place of the most silent one if there are too many.
func (u *udpFlows) start(f *udpFlow) {
	f.touch()
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		f.close()
		return
	}
	if len(u.flows) >= maxUDPFlows {
		u.evicted.Add(1)
		u.mostSilent().close()
	}
	u.flows[f] = struct{}{}
	u.total.Add(1)
	u.running.Go(func() { u.carry(f) })
}

// mostSilent returns the flow whose last datagram is the oldest, and forgets it.
func (u *udpFlows) mostSilent() *udpFlow {
	var oldest *udpFlow
	for f := range u.flows {
		if oldest == nil || f.last.Load() < oldest.last.Load() {
			oldest = f
		}
	}
	delete(u.flows, oldest)
	return oldest
}

// carry copies datagrams both ways until the flow is closed.
func (u *udpFlows) carry(f *udpFlow) {
	var downlink sync.WaitGroup
	downlink.Go(func() { f.copyDatagrams(f.inside, f.outside) })
	f.copyDatagrams(f.outside, f.inside)
	downlink.Wait()
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.flows, f)
}

// copyDatagrams ends with the flow. An ICMP error in between ("refused") concerns
// one datagram, not the flow.
func (f *udpFlow) copyDatagrams(to, from net.Conn) {
	defer f.close()
	datagrams := relay.NewDatagrams(from)
	defer datagrams.Done()
	for {
		datagram, err := datagrams.Next()
		if errors.Is(err, syscall.ECONNREFUSED) {
			continue
		}
		if err != nil {
			return
		}
		f.touch()
		if _, err := to.Write(datagram); errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

func (f *udpFlow) touch() { f.last.Store(time.Now().UnixNano()) }

func (f *udpFlow) close() {
	f.inside.Close()
	f.outside.Close()
}

// sweep closes silent flows until ctx ends.
func (u *udpFlows) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			u.expire(time.Now())
		}
	}
}

// expire closes the flows that have been silent for too long at now.
func (u *udpFlows) expire(now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for f := range u.flows {
		if now.Sub(time.Unix(0, f.last.Load())) > f.idle {
			f.close()
		}
	}
}

// close ends all flows and returns when their goroutines are gone.
func (u *udpFlows) close() {
	u.mu.Lock()
	u.closed = true
	for f := range u.flows {
		f.close()
	}
	u.mu.Unlock()
	u.running.Wait()
}

func (u *udpFlows) stats() ProtocolStats {
	u.mu.Lock()
	open := len(u.flows)
	u.mu.Unlock()
	return ProtocolStats{
		Open: int64(open), Total: u.total.Load(), Refused: u.refused.Load(), Failed: u.failed.Load(), Evicted: u.evicted.Load(),
	}
}
