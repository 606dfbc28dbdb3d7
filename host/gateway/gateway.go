// Package gateway gives each enclave its network on the host: it accepts links,
// keeps one netstack per enclave, and turns the enclave's flows into sockets of
// the host (NAT), with DNS and DHCP on the gateway's address. It opens no port
// for clients (publish does) and serves no API of its own (api does).
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/netstack"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// DefaultGrace is how long an enclave's flows outlive its link: longer than the cut
// of 30 s that they have to survive, and the delay before the enclave comes back.
const DefaultGrace = 45 * time.Second

var (
	// ErrAbsent reports that the enclave has no link. It may come back: the
	// caller may try again later.
	ErrAbsent = errors.New("gateway: no enclave is attached")
	// ErrSeveral reports that no enclave was named while several are attached. The
	// caller must name one.
	ErrSeveral = errors.New("gateway: several enclaves are attached: name one by its CID")
	// ErrClosed reports that the gateway stops. The caller should give up.
	ErrClosed = errors.New("gateway: stopped")
)

// Config says how a Gateway treats its enclaves.
type Config struct {
	// MTU is the largest IP packet sent to an enclave; 0 is tapstack.DefaultMTU.
	MTU int
	// WriteMax is the most bytes that one write to a link may have; 0 is no limit.
	WriteMax int
	// PlainMaxFrame is the longest frame for an enclave that speaks the plain link
	// and so cannot say what it takes; 0 is what its MTU needs, which every such
	// enclave takes.
	PlainMaxFrame int
	// Lanes is the most streams that one link has, at most tapstack.MaxLanes; 0 is one.
	Lanes int
	// Grace is how long an enclave's network lives on without a link, so that its
	// flows survive a reconnection; 0 is DefaultGrace.
	Grace time.Duration
	// DNS are the resolvers that queries go to; none means those of ResolvConf.
	DNS []netip.AddrPort
	// ResolvConf is the file with the host's resolvers, read again whenever it
	// changes; empty means /etc/resolv.conf.
	ResolvConf string
	// HostLoopback lets enclaves reach services on the host's own 127.0.0.1, by
	// the address tapstack.HostAliasAddr. gvproxy always allows this. Here it is
	// off by default: what listens on loopback alone has usually no other
	// protection, and an enclave runs code that the host's operator need not trust.
	HostLoopback bool
	// IPv6 says whether enclaves get IPv6; the zero value is IPv6Auto.
	IPv6 IPv6
	// Egress limits where enclaves may connect to, beyond what is the host's own.
	Egress Egress
	// LinkAPI returns what answers HTTP on port 80 of the gateway, inside the link
	// of one enclave; nil means that the port is closed.
	LinkAPI func(vsockconn.CID) http.Handler
	// Log is where events go; it must not be nil.
	Log *slog.Logger
}

// A Gateway holds the networks of all enclaves. Make one with New; Run it once.
type Gateway struct {
	config    Config
	log       *slog.Logger
	resolvers *resolvers
	rules     atomic.Pointer[Rules]
	lanes     *lanes
	openPing  func(is6 bool) (pinger, error)

	running sync.WaitGroup // Attach calls, and networks that are closing

	mu       sync.Mutex
	closed   bool
	networks map[vsockconn.CID]*network
	changed  chan struct{} // closed and replaced when an enclave comes
}

// New returns a Gateway without enclaves.
func New(c Config) *Gateway {
	if c.MTU == 0 {
		c.MTU = tapstack.DefaultMTU
	}
	if c.PlainMaxFrame == 0 {
		c.PlainMaxFrame = c.MTU + tapstack.MinFrame
	}
	if c.Grace == 0 {
		c.Grace = DefaultGrace
	}
	if c.ResolvConf == "" {
		c.ResolvConf = "/etc/resolv.conf"
	}
	g := &Gateway{
		config:    c,
		log:       c.Log,
		resolvers: newResolvers(c.DNS, c.ResolvConf),
		lanes:     newLanes(c.Lanes),
		openPing:  openPing,
		networks:  map[vsockconn.CID]*network{},
		changed:   make(chan struct{}),
	}
	g.SetRules(Rules{HostLoopback: c.HostLoopback, Egress: c.Egress, DNS: c.DNS})
	return g
}

// Attach carries the link of the enclave cid, which is of the kind p, over conn
// until it ends, and closes it. A newer link of the same CID replaces this one. The enclave's network is
// made by its first link and lives on for the grace time after its last. The
// error says why the link ended; it has been logged. It is nil if ctx ended it.
func (g *Gateway) Attach(ctx context.Context, cid vsockconn.CID, conn net.Conn, p netstack.Peer) error {
	return g.attach(ctx, cid, []net.Conn{conn}, p)
}

func (g *Gateway) attach(ctx context.Context, cid vsockconn.CID, conns []net.Conn, p netstack.Peer) error {
	n, err := g.enter(cid)
	if err != nil {
		closeAll(conns)
		return err
	}
	defer g.running.Done()
	log := g.log.With("cid", uint32(cid))
	log.Info("link attached", "link", n.stack.Stats().Streams+1, "framing", p.Framing.String(), "takes", p.Takes.String(), "lanes", len(conns))
	err = n.stack.AttachLanes(ctx, conns, p)
	g.leave(n)
	switch {
	case err == nil || errors.Is(err, netstack.ErrClosed):
		log.Info("link closed")
	case errors.Is(err, netstack.ErrReplaced):
		log.Info("link replaced by a newer one")
	default:
		log.Warn("link lost", "err", err, "grace", g.config.Grace.String())
	}
	return err
}

// enter returns the network of the enclave, made if need be, with one more link.
func (g *Gateway) enter(cid vsockconn.CID) (*network, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, ErrClosed
	}
	n := g.networks[cid]
	if n == nil {
		var err error
		if n, err = newNetwork(g, cid); err != nil {
			return nil, fmt.Errorf("gateway: network for CID %d: %w", cid, err)
		}
		g.networks[cid] = n
	}
	n.links++
	if n.expiry != nil {
		n.expiry.Stop()
		n.expiry = nil
	}
	g.running.Add(1)
	close(g.changed)
	g.changed = make(chan struct{})
	return n, nil
}

// leave says that one link of the network has ended.
func (g *Gateway) leave(n *network) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n.links--
	if n.links > 0 || g.closed {
		return
	}
	n.expiry = time.AfterFunc(g.config.Grace, func() { g.expire(n) })
}

// expire closes a network that no link came back to.
func (g *Gateway) expire(n *network) {
	g.mu.Lock()
	if g.closed || n.links > 0 || g.networks[n.cid] != n {
		g.mu.Unlock()
		return
	}
	delete(g.networks, n.cid)
	g.running.Add(1)
	g.mu.Unlock()
	defer g.running.Done()
	g.log.Warn("enclave did not come back: its flows are closed", "cid", uint32(n.cid), "after", g.config.Grace.String())
	n.close()
}

// close ends every network, and returns when all goroutines are gone.
func (g *Gateway) close() {
	g.mu.Lock()
	g.closed = true
	var all []*network
	for _, n := range g.networks {
		all = append(all, n)
		if n.expiry != nil {
			n.expiry.Stop()
		}
	}
	close(g.changed)
	g.changed = make(chan struct{})
	g.mu.Unlock()
	var closing sync.WaitGroup
	for _, n := range all {
		closing.Go(n.close)
	}
	closing.Wait()
	g.running.Wait()
}

// Dial connects to a port of the enclave cid, or of the only enclave there is if
// cid is vsockconn.CIDAny. While no such enclave has a link, Dial waits for it as
// long as ctx allows, then returns ErrAbsent. The enclave sees the address from,
// if it is one that can be routed there, else the gateway's.
func (g *Gateway) Dial(ctx context.Context, from netip.AddrPort, cid vsockconn.CID, port uint16) (net.Conn, error) {
	n, err := g.await(ctx, cid)
	if err != nil {
		return nil, err
	}
	return n.dial(ctx, from, port)
}

// await returns the network to dial through.
func (g *Gateway) await(ctx context.Context, cid vsockconn.CID) (*network, error) {
	for {
		n, changed, err := g.pick(cid)
		if n != nil || err != nil {
			return n, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w (waited for CID %s)", ErrAbsent, cid)
		}
	}
}

// pick returns the network if there is one with a link, or what to wait for.
func (g *Gateway) pick(cid vsockconn.CID) (*network, <-chan struct{}, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, nil, ErrClosed
	}
	var picked *network
	for _, n := range g.networks {
		if n.links == 0 || (cid != vsockconn.CIDAny && cid != n.cid) {
			continue
		}
		if picked != nil {
			return nil, nil, ErrSeveral
		}
		picked = n
	}
	return picked, g.changed, nil
}

// Enclaves describes the enclaves that have a network now, by CID.
func (g *Gateway) Enclaves() []Enclave {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []Enclave
	for _, n := range g.networks {
		all = append(all, n.describe())
	}
	slices.SortFunc(all, func(a, b Enclave) int { return int(int64(a.CID) - int64(b.CID)) })
	return all
}
