package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/netstack"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// An Enclave is what is known of one enclave's network.
type Enclave struct {
	CID      vsockconn.CID
	Attached bool              // it has a link now
	Stats    netstack.Stats    // of its stack
	Flows    FlowStats         // of the NAT
	Counters map[string]any    // of the stack below, as netstack.Stack.Counters
	Leases   map[string]string // addresses that DHCP gave out, to hardware addresses
	Refusals map[string]uint64 // what the enclave did not get, by cause
	DNS      DNSStats
}

// A network is one enclave's: a stack, its services, and its flows.
type network struct {
	cid    vsockconn.CID
	log    *slog.Logger
	stack  *netstack.Stack
	policy policy
	tcp    *tcpFlows
	udp    *udpFlows
	echo   *echoes
	dns    *dnsServer
	dhcp   *dhcpServer
	web    *http.Server // nil if port 80 is closed

	refusals *refusals

	ctx      context.Context // ends when the network closes
	cancel   context.CancelFunc
	services sync.WaitGroup

	// Both belong to the Gateway's lock.
	links  int         // Attach calls under way
	expiry *time.Timer // runs while there are none
}

// newNetwork makes the stack and starts the services on the gateway's address.
func newNetwork(g *Gateway, cid vsockconn.CID) (*network, error) {
	ctx, cancel := context.WithCancel(context.Background())
	log := g.log.With("cid", uint32(cid))
	n := &network{
		cid:      cid,
		log:      log,
		policy:   g.newPolicy(),
		refusals: newRefusals(log),
		ctx:      ctx,
		cancel:   cancel,
	}
	n.tcp = newTCPFlows(n)
	n.udp = newUDPFlows(n)
	n.echo = newEchoes(n, g.openPing)
	var err error
	n.stack, err = netstack.New(netstack.Config{
		MTU:      g.config.MTU,
		WriteMax: g.config.WriteMax,
		IPv6:     g.config.IPv6 != IPv6Off,
		Aliases:  []netip.Addr{tapstack.HostAliasAddr()},
		TCP:      n.tcp.handle,
		UDP:      n.udp.handle,
		Echo:     n.echo.handle,
	})
	if err != nil {
		cancel()
		return nil, err
	}
	n.services.Go(func() { n.udp.sweep(ctx) })
	if err := n.serve(g); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

// serve starts what answers on the gateway's own ports.
func (n *network) serve(g *Gateway) error {
	var err error
	if n.dns, err = newDNSServer(n, g.resolvers); err != nil {
		return err
	}
	if n.dhcp, err = newDHCPServer(n.stack, g.config.MTU); err != nil {
		return err
	}
	n.services.Go(n.dhcp.run)
	if g.config.LinkAPI == nil {
		return nil
	}
	l, err := n.stack.ListenTCP(80)
	if err != nil {
		return err
	}
	n.web = &http.Server{
		Handler:           g.config.LinkAPI(n.cid),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       headerTimeout,
		WriteTimeout:      headerTimeout,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(n.log.Handler(), slog.LevelDebug),
	}
	n.services.Go(func() {
		if err := n.web.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			n.log.Error("HTTP inside the link stopped", "err", err)
		}
	})
	return nil
}

// close ends links, services and flows, in this order of dependence: flows need
// the stack to tell the enclave that they end.
func (n *network) close() {
	n.cancel()
	if n.web != nil {
		n.web.Close()
	}
	if n.dns != nil {
		n.dns.close()
	}
	if n.dhcp != nil {
		n.dhcp.close()
	}
	n.udp.close()
	n.echo.close()
	n.stack.Close()
	n.services.Wait()
}

// dial connects to the enclave as the client, where that can be routed.
func (n *network) dial(ctx context.Context, client netip.AddrPort, port uint16) (net.Conn, error) {
	if conn, ok, err := n.dial6(ctx, client, port); ok {
		return conn, err
	}
	return n.dialAs(ctx, presentable(client), netip.AddrPortFrom(tapstack.EnclaveAddr(), port))
}

func (n *network) dialAs(ctx context.Context, from, to netip.AddrPort) (net.Conn, error) {
	conn, err := n.stack.DialTCP(ctx, from, to)
	// The pair of ports may still be in use by a connection to another published
	// port: then the address is kept, and the port is any.
	if errors.Is(err, syscall.EADDRINUSE) && from.IsValid() {
		conn, err = n.stack.DialTCP(ctx, netip.AddrPortFrom(from.Addr(), 0), to)
	}
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// presentable returns the client's address if the enclave can answer to it by
// its default route, else the zero value.
func presentable(client netip.AddrPort) netip.AddrPort {
	addr := client.Addr().Unmap()
	if !addr.Is4() || addr.IsLoopback() || addr.IsMulticast() || addr.IsUnspecified() || addr.IsLinkLocalUnicast() ||
		tapstack.Subnet().Contains(addr) {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(addr, client.Port())
}

func (n *network) describe() Enclave {
	return Enclave{
		CID:      n.cid,
		Attached: n.links > 0,
		Stats:    n.stack.Stats(),
		Flows:    FlowStats{TCP: n.tcp.stats(), UDP: n.udp.stats(), ICMP: n.echo.stats(), Dials: n.tcp.dials.Snapshot()},
		Counters: n.stack.Counters(),
		Leases:   n.dhcp.leases(),
		Refusals: n.refusals.byCause(),
		DNS:      n.dns.stats(),
	}
}
