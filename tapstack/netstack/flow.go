package netstack

import (
	"errors"
	"fmt"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/corridor-enclave/corridor/tapstack"
)

// ErrDecided reports that a flow was already accepted or rejected. It is a
// mistake of the caller.
var ErrDecided = errors.New("netstack: flow is already decided")

// A TCPFlow is a connection that the enclave wants to open. It is not answered
// until Accept or Reject, so that the enclave learns whether the destination
// took the connection. It is not safe for concurrent use.
type TCPFlow struct {
	// Source is the address in the enclave, Destination what it wants to reach.
	Source, Destination netip.AddrPort

	request *tcp.ForwarderRequest
	decided bool
}

// Accept completes the handshake with the enclave. It fails if the enclave has
// lost interest meanwhile, or the Stack was closed.
func (f *TCPFlow) Accept() (*Conn, error) {
	if f.decided {
		return nil, ErrDecided
	}
	f.decided = true
	var wq waiter.Queue
	ep, err := f.request.CreateEndpoint(&wq)
	f.request.Complete(err != nil)
	if err != nil {
		return nil, fmt.Errorf("netstack: accept %s from the enclave: %w", f.Destination, errnoOf(err))
	}
	return newConn(&wq, ep), nil
}

// Reject answers with a reset: the enclave sees "connection refused".
func (f *TCPFlow) Reject() {
	if f.decided {
		return
	}
	f.decided = true
	f.request.Complete(true)
}

// handleTCP runs on a goroutine of its own, started by the stack.
func (s *Stack) handleTCP(r *tcp.ForwarderRequest) {
	id := r.ID()
	f := &TCPFlow{
		Source:      addrPort(id.RemoteAddress, id.RemotePort),
		Destination: addrPort(id.LocalAddress, id.LocalPort),
		request:     r,
	}
	defer f.Reject()
	if s.config.TCP == nil || !s.beginFlow() {
		return
	}
	defer s.flows.Done()
	s.config.TCP(f)
}

// beginFlow counts one more handler for Close to wait for, unless it is too late.
func (s *Stack) beginFlow() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.flows.Add(1)
	return true
}

// A UDPFlow is a pair of addresses that the enclave sends datagrams between. It
// is valid only during the call of the handler that it was given to.
type UDPFlow struct {
	// Source is the address in the enclave, Destination where it sends to.
	Source, Destination netip.AddrPort

	request  *udp.ForwarderRequest
	accepted bool
}

// Accept returns the enclave's end: each Read is one datagram that it sent to
// Destination, the first one included, and each Write is one datagram to it. The
// caller closes it; an idle flow does not end by itself.
func (f *UDPFlow) Accept() (*DatagramConn, error) {
	if f.accepted {
		return nil, ErrDecided
	}
	f.accepted = true
	var wq waiter.Queue
	ep, err := f.request.CreateEndpoint(&wq)
	if err != nil {
		return nil, fmt.Errorf("netstack: accept datagrams to %s: %w", f.Destination, errnoOf(err))
	}
	return newDatagramConn(&wq, ep), nil
}

// handleUDP runs on the goroutine that reads the stream.
func (s *Stack) handleUDP(r *udp.ForwarderRequest) bool {
	if s.config.UDP == nil || s.isClosed() {
		return false
	}
	id := r.ID()
	f := &UDPFlow{
		Source:      addrPort(id.RemoteAddress, id.RemotePort),
		Destination: addrPort(id.LocalAddress, id.LocalPort),
		request:     r,
	}
	if a := f.Source.Addr(); a == tapstack.GatewayAddr() || a == tapstack.GatewayAddr6() {
		return true // a broadcast of ours, which the stack delivers to itself too
	}
	s.config.UDP(f)
	return f.accepted
}
