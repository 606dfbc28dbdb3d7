package gateway

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/corridor-enclave/corridor/tapstack/exposition"
	"github.com/corridor-enclave/corridor/tapstack/netstack"
	"github.com/corridor-enclave/corridor/tapstack/relay"
)

const (
	// dialTimeout is how long a destination may take to accept a connection.
	dialTimeout = 10 * time.Second
	// maxPendingDials bounds the connections that are being made to one
	// destination, so that one that does not answer cannot use up the room of all.
	maxPendingDials = 256
	// maxTCPFlows bounds the TCP flows of one enclave, each of which is a socket
	// of the host.
	maxTCPFlows = 8192
)

// FlowStats counts what the NAT has carried for one enclave.
type FlowStats struct {
	TCP, UDP ProtocolStats
	ICMP     ProtocolStats // echo requests; those that are open were not answered yet
	// Dials is how long destinations took to accept a connection.
	Dials exposition.Snapshot
}

// ProtocolStats counts the flows of one protocol.
type ProtocolStats struct {
	Open    int64  // now
	Total   uint64 // ever accepted
	Refused uint64 // by policy, or because there were too many
	Failed  uint64 // the destination could not be reached
	Evicted uint64 // closed to make room for a newer one (UDP only)
}

// tcpFlows are the TCP connections that an enclave opens to the outside.
type tcpFlows struct {
	network *network

	open                   atomic.Int64
	total, refused, failed atomic.Uint64
	dials                  *exposition.Histogram

	mu      sync.Mutex
	pending map[netip.AddrPort]int
}

func newTCPFlows(n *network) *tcpFlows {
	return &tcpFlows{network: n, dials: exposition.NewDurations(), pending: map[netip.AddrPort]int{}}
}

// handle carries one flow to its end. It runs on a goroutine that the stack
// waits for.
func (t *tcpFlows) handle(f *netstack.TCPFlow) {
	to, no := t.network.policy.route(f.Destination)
	if no.cause == causeNone && t.open.Load() >= maxTCPFlows {
		no = refusal{causeTooMany, "too many connections of this enclave"}
	}
	if no.cause == causeNone && !t.enter(to) {
		no = refusal{causePending, "too many connections to this destination are not yet answered"}
	}
	if no.cause != causeNone {
		t.refused.Add(1)
		t.network.refusals.note("tcp", f.Destination.String(), no)
		f.Reject()
		return
	}
	start := time.Now()
	outside, err := t.dial(to)
	took := time.Since(start)
	t.leave(to)
	if err != nil {
		t.failed.Add(1)
		t.network.log.Debug("destination not reached", "protocol", "tcp", "destination", f.Destination.String(), "err", err)
		f.Reject()
		return
	}
	inside, err := f.Accept()
	if err != nil {
		outside.Close()
		t.failed.Add(1)
		t.network.log.Debug("enclave gave up", "protocol", "tcp", "destination", f.Destination.String(), "err", err)
		return
	}
	t.dials.ObserveDuration(took)
	t.open.Add(1)
	t.total.Add(1)
	defer t.open.Add(-1)
	result, err := relay.Relay(t.network.ctx, inside, outside, relay.Options{})
	t.network.log.Debug("flow ended", "protocol", "tcp", "destination", f.Destination.String(),
		"uplink_bytes", result.AToB, "downlink_bytes", result.BToA, "err", err)
}

func (t *tcpFlows) dial(to netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(t.network.ctx, dialTimeout)
	defer cancel()
	var d net.Dialer
	return d.DialContext(ctx, "tcp", to.String())
}

// enter counts one more pending dial to the destination, if there is room.
func (t *tcpFlows) enter(to netip.AddrPort) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pending[to] >= maxPendingDials {
		return false
	}
	t.pending[to]++
	return true
}

func (t *tcpFlows) leave(to netip.AddrPort) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pending[to]--; t.pending[to] == 0 {
		delete(t.pending, to)
	}
}

func (t *tcpFlows) stats() ProtocolStats {
	return ProtocolStats{Open: t.open.Load(), Total: t.total.Load(), Refused: t.refused.Load(), Failed: t.failed.Load()}
}
