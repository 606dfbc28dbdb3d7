package netstack

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"github.com/corridor-enclave/corridor/tapstack"
)

// A card is the stack's network card. It implements stack.LinkEndpoint: what
// the stack sends goes into the queue of its lane; what the stream brings is
// delivered by input.
type card struct {
	mtu    atomic.Uint32
	counts *counters
	seed   uint32                   // so that nobody outside can choose a lane
	known  atomic.Pointer[[]*queue] // of all lanes that there ever were; only who attaches a stream adds some
	lanes  atomic.Pointer[[]*queue] // those of the attached stream, or of the last; never empty

	mu         sync.RWMutex
	mac        tcpip.LinkAddress
	dispatcher stack.NetworkDispatcher // nil when the card is not in a stack
}

var (
	_ stack.LinkEndpoint = (*card)(nil)
	_ stack.GSOEndpoint  = (*card)(nil)
)

func newCard(mtu int, counts *counters) *card {
	c := &card{mac: tcpip.LinkAddress(tapstack.GatewayMAC()), counts: counts, seed: rand.Uint32()}
	c.known.Store(new([]*queue))
	c.useLanes(1)
	c.SetMTU(uint32(mtu))
	return c
}

// useLanes spreads the flows over so many queues from now on. They are closed, as
// they were before.
func (c *card) useLanes(n int) []*queue {
	known := slices.Clone(*c.known.Load())
	for len(known) < n {
		known = append(known, newQueue(c.counts))
	}
	lanes := known[:n:n]
	c.known.Store(&known)
	c.lanes.Store(&lanes)
	return lanes
}

// lane is where the packet has to wait: one flow is always in the same lane, as
// long as their number stays.
func (c *card) lane(p *stack.PacketBuffer) *queue {
	lanes := *c.lanes.Load()
	if len(lanes) == 1 {
		return lanes[0]
	}
	// The upper bits, unlike the queue's buckets.
	return lanes[uint64(flowHash(p, c.seed))*uint64(len(lanes))>>32]
}

// WritePackets queues the packets for the writer of the stream. Segments with
// payload wait while the queue is full, which slows down the sender that made
// them; all else is never made to wait, since it may come from the goroutine
// that reads the stream. Packets that find no room are dropped and counted.
func (c *card) WritePackets(list stack.PacketBufferList) (int, tcpip.Error) {
	packets := list.AsSlice()
	for _, p := range packets {
		mayWait := p.TransportProtocolNumber == tcp.ProtocolNumber && p.Data().Size() > 0
		c.lane(p).push(p, mayWait)
	}
	return len(packets), nil
}

// AddHeader puts the Ethernet header in front of the packet.
func (c *card) AddHeader(p *stack.PacketBuffer) {
	source := p.EgressRoute.LocalLinkAddress
	if source == "" {
		source = c.LinkAddress()
	}
	header.Ethernet(p.LinkHeader().Push(header.EthernetMinimumSize)).Encode(&header.EthernetFields{
		SrcAddr: source,
		DstAddr: p.EgressRoute.RemoteLinkAddress,
		Type:    p.NetworkProtocolNumber,
	})
}

// ParseHeader is not needed: input has parsed the header before it delivers.
func (c *card) ParseHeader(*stack.PacketBuffer) bool { return true }

// deliver hands a received packet to the stack.
func (c *card) deliver(protocol tcpip.NetworkProtocolNumber, p *stack.PacketBuffer) {
	c.mu.RLock()
	d := c.dispatcher
	c.mu.RUnlock()
	if d != nil {
		d.DeliverNetworkPacket(protocol, p)
	}
}

// Capabilities says that received checksums need not be verified: VSOCK does
// not corrupt, and a kernel that offloads checksums into its TAP leaves them
// unfinished. Checksums of what is sent are computed by the stack, except those
// that GSO leaves to the receiver.
func (c *card) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityResolutionRequired | stack.CapabilityRXChecksumOffload
}

// Attach and IsAttached tell whether the card is in a stack, not whether a
// stream is attached.
func (c *card) Attach(d stack.NetworkDispatcher) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dispatcher = d
}

// IsAttached reports whether the card is in a stack.
func (c *card) IsAttached() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.dispatcher != nil
}

// LinkAddress returns the gateway's hardware address.
func (c *card) LinkAddress() tcpip.LinkAddress {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.mac
}

// SetLinkAddress changes the gateway's hardware address.
func (c *card) SetLinkAddress(mac tcpip.LinkAddress) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mac = mac
}

// MTU is the largest IP packet that the card takes.
func (c *card) MTU() uint32 { return c.mtu.Load() }

// SetMTU follows what the peer of the attached stream takes.
func (c *card) SetMTU(mtu uint32) { c.mtu.Store(mtu) }

// SupportedGSO says that TCP segments may be larger than the MTU and without
// checksum: either the kernel in the enclave deals with that, or the encoder.
func (c *card) SupportedGSO() stack.SupportedGSO { return stack.HostGSOSupported }

// GSOMaxSize is the largest such segment, with all headers.
func (c *card) GSOMaxSize() uint32 { return tapstack.MaxFrame }

// MaxHeaderLength is the room that the stack reserves for AddHeader.
func (c *card) MaxHeaderLength() uint16 { return header.EthernetMinimumSize }

// ARPHardwareType is Ethernet.
func (c *card) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareEther }

// Close, Wait and SetOnCloseAction have nothing to do: streams have goroutines,
// and Stack.Close ends them; the card has none.
func (c *card) Close() {}

// Wait does nothing; see Close.
func (c *card) Wait() {}

// SetOnCloseAction does nothing; see Close.
func (c *card) SetOnCloseAction(func()) {}
