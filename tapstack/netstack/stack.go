// Package netstack is the TCP/IP stack that the host runs, in user space, for
// one enclave: it turns the frames of a link stream into TCP, UDP and ICMP. It
// decides nothing about where connections may go and opens no socket of the
// machine; host/gateway does. It is the only importer of gVisor, and its API
// speaks of net and netip types only.
package netstack

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/exposition"
)

// The one network card of a stack.
const nicID tcpip.NICID = 1

const (
	// minMTU is the smallest MTU that IPv4 requires (RFC 791, section 3.2).
	minMTU = 68
	// receiveBuffer is both the default and the maximum. With auto-tuning below a
	// larger maximum, gVisor's window can jump past the point where it would be
	// announced, and the peer then stalls for its persist timer of 200 ms.
	//
	// What a flow uplink has in flight stands in the queue of the enclave's TAP device,
	// first come, first served: tun_net_xmit orphans what it queues, so that TCP small
	// queues do not hold the sender back. With 4 MiB all others waited 2.5 ms there.
	receiveBuffer = 3 << 20
	// sendBuffer is how much of a flow downlink is made into segments in one go, which
	// others wait for. It is several times what is in flight on a link that is not busy.
	sendBuffer = 2 << 20
	minBuffer  = 4 << 10
	// timeWait is short because the link neither loses nor reorders segments, so
	// none can come late into the next connection of the same ports.
	timeWait = time.Second
	// maxInFlight bounds the TCP flows whose handler has not yet decided. SYNs
	// beyond it are dropped and counted; the enclave sends them again.
	maxInFlight = 4096
	// keepAliveIdle is when a silent flow is asked whether its end in the enclave
	// still exists: after a restart of the enclave it does not.
	keepAliveIdle = 60 * time.Second
)

// ErrClosed reports that the Stack was closed. The caller should give up.
var ErrClosed = errors.New("netstack: stack is closed")

// Config says what a Stack is.
type Config struct {
	// MTU is the largest IP packet on the link, 68 to 65521; 0 is
	// tapstack.DefaultMTU. An enclave that takes less gets less. Only TCP segments
	// for an enclave that segments them, or joins them, itself are larger. From the
	// enclave frames may be as long as the framing allows.
	MTU int
	// WriteMax is the most bytes that one write to a stream may have; 0 is no
	// limit.
	WriteMax int
	// Aliases are addresses on the link, beside the gateway's, that the stack
	// answers ARP for. Flows to them go to the handlers like all others.
	Aliases []netip.Addr
	// IPv6 carries IPv6 too, while the attached enclave says that it takes it.
	IPv6 bool
	// PulseEvery is how often a silent enclave is asked for a sign of life, if it
	// said that it answers; 0 is tapstack.PulseEvery.
	PulseEvery time.Duration
	// TCP is called on a goroutine of its own for each connection that the
	// enclave opens to anything but a listener of this Stack. It owns the flow
	// until it returns; a flow that it neither accepted nor rejected is rejected
	// then. nil rejects all.
	TCP func(*TCPFlow)
	// UDP is called for each new pair of addresses that the enclave sends a
	// datagram between. It runs on the goroutine that reads a lane, and several
	// times at once where there are several, so it must not wait for anything; a flow that it did not accept before it returns is
	// answered with ICMP port unreachable. nil accepts none.
	UDP func(*UDPFlow)
	// Echo is called for each echo request (ping) of the enclave to another address
	// than the gateway's, on the goroutine that UDP is called on. nil answers none.
	Echo func(*Echo)
}

// A Stack is the host's end of one enclave's network. It lives longer than the
// streams that carry its frames: while none is attached, TCP connections wait
// and retransmit.
type Stack struct {
	config Config
	mtu    int
	stack  *stack.Stack
	card   *card
	counts counters
	lanes  [tapstack.MaxLanes]laneCounters
	// gathered and reads are of bytes: see Stats.
	gathered, reads *exposition.Histogram

	answers []netip.Addr // addresses whose ARP requests are answered

	// ipv6 says that the attached stream may carry IPv6.
	ipv6 atomic.Bool

	// enclaveMAC is the hardware address that the enclave used last, as packMAC has
	// it. It changes with the neighbour, under learning.
	enclaveMAC atomic.Uint64
	learning   sync.Mutex
	// enclaveKnown says that enclaveMAC was seen beside the enclave's address.
	enclaveKnown atomic.Bool

	flows sync.WaitGroup // handlers of TCP flows

	mu     sync.Mutex
	closed bool
	stream *stream // the attached one, nil if none
}

// New returns a Stack that no stream is attached to.
func New(c Config) (*Stack, error) {
	if c.MTU == 0 {
		c.MTU = tapstack.DefaultMTU
	}
	if c.MTU < minMTU || c.MTU > tapstack.MaxFrame-tapstack.MinFrame {
		return nil, fmt.Errorf("netstack: MTU %d is outside %d to %d", c.MTU, minMTU, tapstack.MaxFrame-tapstack.MinFrame)
	}
	networks := []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol}
	if c.IPv6 {
		networks = append(networks, newIPv6)
	}
	s := &Stack{
		config:   c,
		mtu:      c.MTU,
		gathered: exposition.NewSizes(),
		reads:    exposition.NewSizes(),
		answers:  append([]netip.Addr{tapstack.GatewayAddr()}, c.Aliases...),
		stack: stack.New(stack.Options{
			NetworkProtocols:   networks,
			TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
		}),
	}
	s.card = newCard(c.MTU, &s.counts)
	if err := s.configure(); err != nil {
		s.stack.Destroy()
		return nil, fmt.Errorf("netstack: configure stack: %w", err)
	}
	s.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, tcp.NewForwarder(s.stack, receiveBuffer, maxInFlight, s.handleTCP).HandlePacket)
	s.stack.SetTransportProtocolHandler(udp.ProtocolNumber, udp.NewForwarder(s.stack, s.handleUDP).HandlePacket)
	s.handleEchoes()
	return s, nil
}

// configure sets addresses, routes and protocol options.
func (s *Stack) configure() error {
	if err := s.configureTCP(); err != nil {
		return err
	}
	if err := s.stack.SetPortRange(1024, 65535); err != nil {
		return fmt.Errorf("set port range: %s", err)
	}
	if err := s.stack.CreateNIC(nicID, s.card); err != nil {
		return fmt.Errorf("create network card: %s", err)
	}
	gateway := tcpip.ProtocolAddress{
		Protocol: ipv4.ProtocolNumber,
		AddressWithPrefix: tcpip.AddressWithPrefix{
			Address:   stackAddr(tapstack.GatewayAddr()),
			PrefixLen: tapstack.Subnet().Bits(),
		},
	}
	if err := s.stack.AddProtocolAddress(nicID, gateway, stack.AddressProperties{}); err != nil {
		return fmt.Errorf("add gateway address: %s", err)
	}
	routes := []tcpip.Route{{Destination: gateway.AddressWithPrefix.Subnet(), NIC: nicID}}
	if s.config.IPv6 {
		gateway := gatewayAddress6()
		if err := s.stack.AddProtocolAddress(nicID, gateway, stack.AddressProperties{}); err != nil {
			return fmt.Errorf("add gateway address for IPv6: %s", err)
		}
		routes = append(routes, tcpip.Route{Destination: gateway.AddressWithPrefix.Subnet(), NIC: nicID})
	}
	// The stack answers for every address that the enclave talks to, so it takes
	// packets for all of them and sends from all of them.
	if err := s.stack.SetPromiscuousMode(nicID, true); err != nil {
		return fmt.Errorf("set promiscuous mode: %s", err)
	}
	if err := s.stack.SetSpoofing(nicID, true); err != nil {
		return fmt.Errorf("set spoofing: %s", err)
	}
	if err := s.setEnclaveMAC(packMAC(tapstack.EnclaveMAC())); err != nil {
		return fmt.Errorf("set the enclave's hardware address: %s", err)
	}
	s.stack.SetRouteTable(routes)
	return nil
}

func (s *Stack) configureTCP() error {
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: minBuffer, Default: receiveBuffer, Max: receiveBuffer}
	send := tcpip.TCPSendBufferSizeRangeOption{Min: minBuffer, Default: sendBuffer, Max: sendBuffer}
	moderate := tcpip.TCPModerateReceiveBufferOption(false)
	// RACK's reordering timers only cause spurious retransmissions on a link that
	// keeps the order.
	recovery := tcpip.TCPRecovery(0)
	wait := tcpip.TCPTimeWaitTimeoutOption(timeWait)
	reuse := tcpip.TCPTimeWaitReuseOption(tcpip.TCPTimeWaitReuseGlobal)
	options := []tcpip.SettableTransportProtocolOption{&receive, &send, &moderate, &recovery, &wait, &reuse}
	for _, o := range options {
		if err := s.stack.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return fmt.Errorf("set %T: %s", o, err)
		}
	}
	return nil
}

// MTU returns the largest IP packet that the stack sends.
func (s *Stack) MTU() int { return s.mtu }

// Close ends the attached stream and every connection, and returns when all
// goroutines of the Stack are gone. It waits for the TCP handlers that the
// Config named: their connections fail from now on.
func (s *Stack) Close() {
	s.mu.Lock()
	already := s.closed
	s.closed = true
	current := s.stream
	s.mu.Unlock()
	if already {
		return
	}
	if current != nil {
		current.end(ErrClosed)
		<-current.done
	}
	s.stack.Close()
	s.flows.Wait()
	// A handler may have completed a handshake while Close was aborting.
	s.stack.Close()
	s.stack.Wait()
}

func (s *Stack) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// answersFor reports whether ARP requests for addr are answered.
func (s *Stack) answersFor(addr netip.Addr) bool { return slices.Contains(s.answers, addr) }

// stackAddr is addr as the stack writes it.
func stackAddr(addr netip.Addr) tcpip.Address {
	switch {
	case addr.Is4():
		return tcpip.AddrFrom4(addr.As4())
	case addr.Is6():
		return tcpip.AddrFrom16(addr.As16())
	}
	return tcpip.Address{}
}

// addrPort is the stack's address as the rest of the program writes it.
func addrPort(addr tcpip.Address, port uint16) netip.AddrPort {
	a, _ := netip.AddrFromSlice(addr.AsSlice())
	return netip.AddrPortFrom(a, port)
}
