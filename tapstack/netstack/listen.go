package netstack

import (
	"fmt"
	"net"
	"net/netip"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/corridor-enclave/corridor/tapstack"
)

// backlog is how many connections may wait for Accept; SYNs beyond it are
// dropped and sent again by the enclave.
const backlog = 128

// ListenTCP accepts connections of the enclave to a port of the gateway.
func (s *Stack) ListenTCP(port uint16) (net.Listener, error) {
	l := &listener{stop: make(chan struct{})}
	ep, err := s.stack.NewEndpoint(tcp.ProtocolNumber, ipv4.ProtocolNumber, &l.wq)
	if err == nil {
		l.ep = ep
		err = ep.Bind(fullAddress(netip.AddrPortFrom(tapstack.GatewayAddr(), port)))
	}
	if err == nil {
		err = ep.Listen(backlog)
	}
	if err != nil {
		if ep != nil {
			ep.Close()
		}
		return nil, fmt.Errorf("netstack: listen on port %d: %w", port, errnoOf(err))
	}
	return l, nil
}

// A listener is a net.Listener whose connections are *Conn.
type listener struct {
	wq   waiter.Queue
	ep   tcpip.Endpoint
	stop chan struct{}
	once sync.Once
}

// Accept waits for a connection. After Close it returns net.ErrClosed.
func (l *listener) Accept() (net.Conn, error) {
	entry, ready := waiter.NewChannelEntry(waiter.ReadableEvents)
	l.wq.EventRegister(&entry)
	defer l.wq.EventUnregister(&entry)
	for {
		ep, wq, err := l.ep.Accept(nil)
		if err == nil {
			return newConn(wq, ep), nil
		}
		if _, wait := err.(*tcpip.ErrWouldBlock); !wait {
			return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
		}
		select {
		case <-l.stop:
			return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
		case <-ready:
		}
	}
}

// Close stops accepting. Accepted connections live on.
func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.stop)
		l.ep.Close()
	})
	return nil
}

// Addr is the address that the enclave connects to.
func (l *listener) Addr() net.Addr {
	a, err := l.ep.GetLocalAddress()
	if err != nil {
		return &net.TCPAddr{}
	}
	return net.TCPAddrFromAddrPort(addrPort(a.Addr, a.Port))
}

// ListenUDP receives datagrams of the enclave to a port of the gateway. WriteTo
// wants a *net.UDPAddr.
func (s *Stack) ListenUDP(port uint16) (net.PacketConn, error) {
	return s.listenUDP(netip.AddrPortFrom(tapstack.GatewayAddr(), port), false)
}

// ListenBroadcast receives datagrams of the enclave to a port of any address,
// and may answer to the broadcast address: this is what DHCP needs.
func (s *Stack) ListenBroadcast(port uint16) (net.PacketConn, error) {
	return s.listenUDP(netip.AddrPortFrom(netip.Addr{}, port), true)
}

func (s *Stack) listenUDP(at netip.AddrPort, broadcast bool) (net.PacketConn, error) {
	var wq waiter.Queue
	ep, err := s.stack.NewEndpoint(udp.ProtocolNumber, ipv4.ProtocolNumber, &wq)
	if err != nil {
		return nil, fmt.Errorf("netstack: listen for datagrams on port %d: %w", at.Port(), errnoOf(err))
	}
	ep.SocketOptions().SetBroadcast(broadcast)
	if err := ep.Bind(fullAddress(at)); err != nil {
		ep.Close()
		return nil, fmt.Errorf("netstack: listen for datagrams on port %d: %w", at.Port(), errnoOf(err))
	}
	return gonet.NewUDPConn(&wq, ep), nil
}
