// Package netstacktest is the enclave in a test's memory: a TCP/IP stack with
// the enclave's addresses that speaks frames over a stream, as a TAP device and
// its pump would. It opens no device and needs no privilege; only tests import
// it.
package netstacktest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/corridor-enclave/corridor/tapstack"
)

const (
	nicID     = tcpip.NICID(1)
	queueSize = 4096 // frames to the host that may wait for the stream
)

// An Enclave is the enclave's end of the link, with an ARP cache, a default
// route to the gateway and the kernel's part of TCP.
type Enclave struct {
	stack *stack.Stack
	link  *channel.Endpoint
	eth   stack.LinkEndpoint
}

// NewEnclave returns an Enclave with the usual addresses. It is closed when the
// test ends; Carry connects it.
func NewEnclave(t testing.TB) *Enclave {
	t.Helper()
	e := &Enclave{
		stack: stack.New(stack.Options{
			NetworkProtocols: []stack.NetworkProtocolFactory{
				ipv4.NewProtocol, arp.NewProtocol, ipv6.NewProtocolWithOptions(ipv6.Options{}),
			},
			TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
		}),
		link: channel.New(queueSize, tapstack.DefaultMTU, tcpip.LinkAddress(tapstack.EnclaveMAC())),
	}
	e.link.LinkEPCapabilities = stack.CapabilityResolutionRequired
	e.eth = ethernet.New(e.link)
	must(t, e.stack.CreateNIC(nicID, e.eth))
	must(t, e.stack.AddProtocolAddress(nicID, tcpip.ProtocolAddress{
		Protocol:          ipv4.ProtocolNumber,
		AddressWithPrefix: tcpip.AddressWithPrefix{Address: stackAddr(tapstack.EnclaveAddr()), PrefixLen: 24},
	}, stack.AddressProperties{}))
	must(t, e.stack.AddProtocolAddress(nicID, tcpip.ProtocolAddress{
		Protocol:          ipv6.ProtocolNumber,
		AddressWithPrefix: tcpip.AddressWithPrefix{Address: stackAddr(tapstack.EnclaveAddr6()), PrefixLen: 64},
	}, stack.AddressProperties{}))
	e.stack.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, Gateway: stackAddr(tapstack.GatewayAddr()), NIC: nicID},
		{Destination: header.IPv6EmptySubnet, Gateway: stackAddr(tapstack.GatewayAddr6()), NIC: nicID},
	})
	t.Cleanup(e.stack.Destroy)
	return e
}

func must(t testing.TB, err tcpip.Error) {
	t.Helper()
	if err != nil {
		t.Fatalf("set up the enclave's stack: %s", err)
	}
}

// Carry exchanges frames with the host over conn until either ends; it returns
// when both of its goroutines are gone, with the reason why reading ended.
func (e *Enclave) Carry(conn net.Conn) error { return e.carry(conn, tapstack.Plain) }

// CarryExtended is Carry in the extended framing, for an enclave that said that it
// takes no vnet.
func (e *Enclave) CarryExtended(conn net.Conn) error { return e.carry(conn, tapstack.Extended) }

func (e *Enclave) carry(conn net.Conn, f tapstack.Framing) error {
	ctx, cancel := context.WithCancel(context.Background())
	var up sync.WaitGroup
	up.Go(func() { e.uplink(ctx, conn, f) })
	err := e.downlink(conn, f)
	cancel()
	conn.Close()
	up.Wait()
	return err
}

func (e *Enclave) uplink(ctx context.Context, conn net.Conn, f tapstack.Framing) {
	defer conn.Close()
	for {
		p := e.link.ReadContext(ctx)
		if p == nil {
			return
		}
		frame := p.ToView().AsSlice()
		b := binary.LittleEndian.AppendUint16(nil, uint16(len(frame)))
		if f == tapstack.Extended {
			b = make([]byte, 4+tapstack.OffloadHeader)
			tapstack.PutExtended(b, len(frame))
		}
		_, err := conn.Write(append(b, frame...))
		p.DecRef()
		if err != nil {
			return
		}
	}
}

func (e *Enclave) downlink(conn net.Conn, f tapstack.Framing) error {
	frames := tapstack.NewFrameReader(conn, f, tapstack.MaxFrame)
	for {
		frame, err := frames.Next()
		if err != nil {
			return err
		}
		p := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(frame[tapstack.OffloadHeader:])})
		e.link.InjectInbound(0, p) // the Ethernet layer reads the protocol itself
		p.DecRef()
	}
}

// DialTCP connects from the enclave to anywhere.
func (e *Enclave) DialTCP(ctx context.Context, to netip.AddrPort) (*gonet.TCPConn, error) {
	return gonet.DialContextTCP(ctx, e.stack, fullAddress(to), networkOf(to.Addr()))
}

// DialUDP sends datagrams from the enclave to one address.
func (e *Enclave) DialUDP(to netip.AddrPort) (net.Conn, error) {
	remote := fullAddress(to)
	return gonet.DialUDP(e.stack, nil, &remote, networkOf(to.Addr()))
}

// SendUnreachable sends one datagram and returns the error that an ICMP message
// brings back for it; or the context's, if none comes.
func (e *Enclave) SendUnreachable(ctx context.Context, to netip.AddrPort) error {
	var wq waiter.Queue
	ep, err := e.stack.NewEndpoint(udp.ProtocolNumber, ipv4.ProtocolNumber, &wq)
	if err != nil {
		return errors.New(err.String())
	}
	defer ep.Close()
	entry, failed := waiter.NewChannelEntry(waiter.EventErr)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	if err := ep.Connect(fullAddress(to)); err != nil {
		return errors.New(err.String())
	}
	if _, err := ep.Write(bytes.NewReader([]byte("?")), tcpip.WriteOptions{}); err != nil {
		return errors.New(err.String())
	}
	select {
	case <-failed:
		return errors.New(ep.LastError().String())
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A Ping is the end of echo requests in the enclave.
type Ping struct {
	ep    tcpip.Endpoint
	ready <-chan struct{}
	to    netip.Addr
}

// DialPing sends echo requests from the enclave to one address. The caller closes it.
func (e *Enclave) DialPing(to netip.Addr) (*Ping, error) {
	protocol := icmp.ProtocolNumber4
	if to.Is6() {
		protocol = icmp.ProtocolNumber6
	}
	var wq waiter.Queue
	ep, err := e.stack.NewEndpoint(protocol, networkOf(to), &wq)
	if err != nil {
		return nil, errors.New(err.String())
	}
	entry, ready := waiter.NewChannelEntry(waiter.ReadableEvents)
	wq.EventRegister(&entry)
	if err := ep.Connect(fullAddress(netip.AddrPortFrom(to, 0))); err != nil {
		ep.Close()
		return nil, errors.New(err.String())
	}
	return &Ping{ep: ep, ready: ready, to: to}, nil
}

// Send sends one request.
func (p *Ping) Send(sequence uint16, payload []byte) error {
	kind := byte(header.ICMPv4Echo)
	if p.to.Is6() {
		kind = byte(header.ICMPv6EchoRequest)
	}
	message := binary.BigEndian.AppendUint16([]byte{kind, 0, 0, 0, 0, 0}, sequence)
	if _, err := p.ep.Write(bytes.NewReader(append(message, payload...)), tcpip.WriteOptions{}); err != nil {
		return errors.New(err.String())
	}
	return nil
}

// Receive waits for one reply.
func (p *Ping) Receive(ctx context.Context) (sequence uint16, payload []byte, err error) {
	const head = 8
	for {
		var message bytes.Buffer
		_, err := p.ep.Read(&message, tcpip.ReadOptions{})
		if b := message.Bytes(); err == nil && len(b) >= head {
			return binary.BigEndian.Uint16(b[6:]), b[head:], nil
		}
		if _, wait := err.(*tcpip.ErrWouldBlock); err != nil && !wait {
			return 0, nil, errors.New(err.String())
		}
		select {
		case <-p.ready:
		case <-ctx.Done():
			return 0, nil, ctx.Err()
		}
	}
}

// Close ends it.
func (p *Ping) Close() { p.ep.Close() }

// ListenDHCP is the socket of a DHCP client: it may send to everybody.
func (e *Enclave) ListenDHCP() (net.PacketConn, error) {
	var wq waiter.Queue
	ep, err := e.stack.NewEndpoint(udp.ProtocolNumber, ipv4.ProtocolNumber, &wq)
	if err != nil {
		return nil, errors.New(err.String())
	}
	ep.SocketOptions().SetBroadcast(true)
	if err := ep.Bind(tcpip.FullAddress{NIC: nicID, Port: 68}); err != nil {
		ep.Close()
		return nil, errors.New(err.String())
	}
	return gonet.NewUDPConn(&wq, ep), nil
}

// ListenTCP accepts connections in the enclave.
func (e *Enclave) ListenTCP(port uint16) (net.Listener, error) {
	return gonet.ListenTCP(e.stack, fullAddress(netip.AddrPortFrom(tapstack.EnclaveAddr(), port)), ipv4.ProtocolNumber)
}

// ListenTCP6 accepts connections over IPv6 in the enclave.
func (e *Enclave) ListenTCP6(port uint16) (net.Listener, error) {
	return gonet.ListenTCP(e.stack, fullAddress(netip.AddrPortFrom(tapstack.EnclaveAddr6(), port)), ipv6.ProtocolNumber)
}

func stackAddr(a netip.Addr) tcpip.Address {
	if a.Is6() {
		return tcpip.AddrFrom16(a.As16())
	}
	return tcpip.AddrFrom4(a.As4())
}

func networkOf(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is6() {
		return ipv6.ProtocolNumber
	}
	return ipv4.ProtocolNumber
}

func fullAddress(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nicID, Addr: stackAddr(a.Addr()), Port: a.Port()}
}
