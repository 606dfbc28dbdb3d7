package netstack

import (
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"github.com/corridor-enclave/corridor/tapstack"
)

// A card is the stack's network card. It implements stack.LinkEndpoint: what
// the stack sends goes into the downlink queue; what the stream brings is
// delivered by input.
type card struct {
	mtu    atomic.Uint32
	queue  *queue
	counts *counters

	mu         sync.RWMutex
	mac        tcpip.LinkAddress
	dispatcher stack.NetworkDispatcher // nil when the card is not in a stack
}

var (
	_ stack.LinkEndpoint = (*card)(nil)
	_ stack.GSOEndpoint  = (*card)(nil)
)

func newCard(mtu int, counts *counters) *card {
	c := &card{
		mac:    tcpip.LinkAddress(tapstack.GatewayMAC()),
		queue:  newQueue(counts),
		counts: counts,
	}
	c.SetMTU(uint32(mtu))
	return c
}

// WritePackets queues the packets for the writer of the stream. Segments with
// payload wait while the queue is full, which slows down the sender that made
// them; all else is never made to wait, since it may come from the goroutine
// that reads the stream. Packets that find no room are dropped and counted.
func (c *card) WritePackets(list stack.PacketBufferList) (int, tcpip.Error) {
	packets := list.AsSlice()
	for _, p := range packets {
		mayWait := p.TransportProtocolNumber == tcp.ProtocolNumber && p.Data().Size() > 0
		c.queue.push(p, mayWait)
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
