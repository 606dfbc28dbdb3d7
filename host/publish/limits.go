package publish

import (
	"net/netip"
	"strconv"
	"sync"

	"github.com/corridor-enclave/corridor/tapstack/exposition"
)

// Limits bound what clients may take of the host. One beyond them is reset at
// once, and counted. Zero is the default of each.
type Limits struct {
	Total     int // connections of all ports
	PerPort   int // connections of each port
	PerClient int // connections of each client: an IPv4 address, an IPv6 network of 64 bits
	Dials     int // clients of all ports who wait for an enclave
}

// Defaults of Limits. A balancer that hides its clients is one client: whoever
// sits behind one raises that limit.
const (
	DefaultTotal     = 32768
	DefaultPerPort   = 16384
	DefaultPerClient = 16384
	DefaultDials     = 1024
)

func (l Limits) orDefaults() Limits {
	for _, f := range []struct {
		limit *int
		def   int
	}{{&l.Total, DefaultTotal}, {&l.PerPort, DefaultPerPort}, {&l.PerClient, DefaultPerClient}, {&l.Dials, DefaultDials}} {
		if *f.limit == 0 {
			*f.limit = f.def
		}
	}
	return l
}

// A refusal is which limit a client met, or that no enclave has the name that it
// asked for.
type refusal int

const (
	tooMany refusal = iota
	tooManyOnPort
	tooManyOfClient
	tooManyWaiting
	nameless
	refusals // how many there are
)

// String is the name of the refusal in logs and in the API.
func (r refusal) String() string {
	switch r {
	case tooMany:
		return "total"
	case tooManyOnPort:
		return "port"
	case tooManyOfClient:
		return "client"
	case tooManyWaiting:
		return "waiting"
	case nameless:
		return "name"
	}
	return "refusal " + strconv.Itoa(int(r))
}

// clientBits6 is the network that one client has in IPv6.
const clientBits6 = 64

// guests counts the connections of all ports.
type guests struct {
	mu      sync.Mutex
	limits  Limits
	total   int
	clients map[netip.Addr]int
}

func newGuests() *guests { return &guests{clients: map[netip.Addr]int{}} }

func (g *guests) bound(l Limits) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limits = l
}

func (g *guests) enter(client netip.Addr) (refusal, bool) {
	client = network(client)
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.total >= g.limits.Total:
		return tooMany, false
	case g.clients[client] >= g.limits.PerClient:
		return tooManyOfClient, false
	}
	g.total++
	g.clients[client]++
	return 0, true
}

func (g *guests) leave(client netip.Addr) {
	client = network(client)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.total--
	if g.clients[client]--; g.clients[client] == 0 {
		delete(g.clients, client)
	}
}

func (g *guests) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.total
}

// network is what a client can choose no other address from.
func network(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if !a.Is6() {
		return a
	}
	p, _ := a.Prefix(clientBits6) // fits: it is an IPv6 address without a zone
	return p.Addr()
}

// A Status is what one published port did since it was added.
type Status struct {
	Spec        Spec
	Connections int64            // now
	Accepted    int64            // clients that came
	Failed      int64            // of them, those whom no enclave took; and failures to accept any
	Refused     map[string]int64 // of them, those beyond a limit: total, port, client, waiting, name

	DownlinkBytes, UplinkBytes int64               // to the enclave and from it
	Dials                      exposition.Snapshot // how long clients waited for an enclave that took them
}

func (q *port) status() Status {
	s := Status{
		Spec: q.plan.Load().Spec, Connections: q.active.Load(), Accepted: q.accepted.Load(), Failed: q.failures.Load(),
		Refused: map[string]int64{}, DownlinkBytes: q.downlink.Load(), UplinkBytes: q.uplink.Load(), Dials: q.dials.Snapshot(),
	}
	for r := range q.refusals {
		s.Refused[refusal(r).String()] = q.refusals[r].Load()
	}
	return s
}
