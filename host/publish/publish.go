// Package publish carries connections of clients from ports of the host into
// enclaves. It reaches enclaves only through the dialer that it is given, and
// looks at nothing that is said on a connection.
package publish

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/corridor-enclave/corridor/host/balance"
	"github.com/corridor-enclave/corridor/tapstack/relay"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

var (
	// ErrPublished reports that the address is already published by this process.
	// The caller may unpublish it first.
	ErrPublished = errors.New("publish: already published")
	// ErrNotPublished reports that there is nothing to unpublish.
	ErrNotPublished = errors.New("publish: not published")
	// ErrClosed reports that no port is published any more. The caller should
	// give up.
	ErrClosed = errors.New("publish: stopped")
)

// A Call is one client who wants to be brought into an enclave.
type Call struct {
	Client netip.AddrPort // who connected; not valid if the system does not say
	Local  netip.AddrPort // where the client connected to
	ID     string         // of this connection, as in the log
	To     Spec           // the published port
	CID    vsockconn.CID  // the enclave that was chosen
	Wait   bool           // for an enclave that is not there: no other one is left to try
}

// A DialFunc connects to an enclave on behalf of a client, whose address is for
// the enclave to see. Both it and, if it is to wait, what it waits for end with ctx.
type DialFunc func(ctx context.Context, call Call) (net.Conn, error)

// Config says how ports are published.
type Config struct {
	// Link and Stream reach enclaves by either road; they must not be nil.
	Link, Stream DialFunc
	// Only returns the only enclave there is, and waits for it as long as ctx
	// allows. It is asked where a Spec names none, and must not be nil.
	Only func(ctx context.Context) (vsockconn.CID, error)
	// Balancer chooses among enclaves; it must not be nil.
	Balancer *balance.Balancer
	// Listen opens a port; nil is net.Listen on TCP.
	Listen func(local string) (net.Listener, error)
	// LinkReady is closed once clients may be carried on the link road: until then
	// they wait in the queue of their port. nil is at once.
	LinkReady <-chan struct{}
	// Hold is how long a client is kept waiting for an enclave, so that one that
	// reconnects or restarts costs its clients a delay and no error; 0 is
	// DefaultHold.
	Hold time.Duration
	// Tuning is what Tune may change later.
	Tuning
	// Log is where events go; it must not be nil.
	Log *slog.Logger
}

// A Tuning is what may change while clients are carried.
type Tuning struct {
	// IdleTimeout ends connections on which nothing moves; 0 is never. Connections
	// keep the one that they began with.
	IdleTimeout time.Duration
	// Limits bound what clients may take; a zero in them is its default.
	Limits Limits
	// DrainTimeout is how long connections may go on after Run was asked to stop.
	DrainTimeout time.Duration
}

// DefaultHold bridges a reconnection, which takes about a second at most.
const DefaultHold = 5 * time.Second

// A Publisher holds the published ports.
type Publisher struct {
	config Config
	hard   context.Context // ends the connections that did not drain
	cut    context.CancelFunc

	running sync.WaitGroup // accept loops and connections
	relays  relay.Engine

	process uint64        // begins the ID of every connection
	calls   atomic.Uint64 // and their number ends it
	waiting atomic.Int64  // clients who wait for an enclave
	guests  *guests
	tuning  atomic.Pointer[Tuning]

	mu    sync.Mutex
	state state
	ports map[string]*port // by Spec.Local as it was given
}

// A Publisher is
//
//	waiting ──Run──► serving ──ctx ends──► closed
//
// Ports added while it waits listen already: clients queue.
type state int

const (
	waiting state = iota
	serving
	closed
)

// New returns a Publisher without ports.
func New(c Config) *Publisher {
	if c.Hold == 0 {
		c.Hold = DefaultHold
	}
	if c.Listen == nil {
		c.Listen = func(local string) (net.Listener, error) { return net.Listen("tcp", local) }
	}
	hard, cut := context.WithCancel(context.Background())
	p := &Publisher{
		config: c, hard: hard, cut: cut, ports: map[string]*port{},
		process: rand.Uint64(), guests: newGuests(),
	}
	p.Tune(c.Tuning)
	return p
}

// Tune changes what may change while clients are carried. Nobody who is there
// already is sent away for a lower limit.
func (p *Publisher) Tune(t Tuning) {
	t.Limits = t.Limits.orDefaults()
	p.tuning.Store(&t)
	p.guests.bound(t.Limits)
}

// Add starts to listen, and returns the address, which tells the port if the
// Spec left it open; the port is then known by that address. It may be called before and during Run. The error is
// ErrPublished, ErrClosed, or says why the host cannot listen there.
func (p *Publisher) Add(s Spec) (net.Addr, error) {
	p.mu.Lock()
	_, taken := p.ports[s.Local]
	p.mu.Unlock()
	if taken {
		return nil, fmt.Errorf("%w: %s", ErrPublished, s.Local)
	}
	c, err := p.prepare([]Port{{Spec: s}})
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return c.added[0].listener.Addr(), p.adopt(c)
}

// start begins to accept; the caller holds the lock.
func (p *Publisher) start(q *port) { p.running.Go(q.accept) }

// Remove stops to listen on the address, as List has it. Connections
// that it brought live on.
func (p *Publisher) Remove(local string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.ports[local]; !ok {
		return fmt.Errorf("%w: %s", ErrNotPublished, local)
	}
	p.remove(local)
	return nil
}

// remove stops a port; the caller holds the lock.
func (p *Publisher) remove(local string) {
	q := p.ports[local]
	delete(p.ports, local)
	q.stop()
	p.config.Log.Info("unpublished", "addr", q.listener.Addr().String())
}

// List returns what is published, ordered by address.
func (p *Publisher) List() []Spec {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []Spec
	for _, q := range p.ports {
		all = append(all, q.plan.Load().Spec)
	}
	slices.SortFunc(all, func(a, b Spec) int { return strings.Compare(a.Local, b.Local) })
	return all
}

// Status returns what every port did so far, ordered by address.
func (p *Publisher) Status() []Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []Status
	for _, q := range p.ports {
		all = append(all, q.status())
	}
	slices.SortFunc(all, func(a, b Status) int { return strings.Compare(a.Spec.Local, b.Spec.Local) })
	return all
}

// Run accepts clients until ctx ends. Then it closes the ports, lets connections
// go on for the drain timeout, cuts the rest, and returns nil when all are gone.
func (p *Publisher) Run(ctx context.Context) error {
	p.mu.Lock()
	p.state = serving
	for _, q := range p.ports {
		p.start(q)
	}
	p.mu.Unlock()

	<-ctx.Done()
	p.Close()
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		p.running.Wait()
	}()
	timeout := time.NewTimer(p.tuning.Load().DrainTimeout)
	defer timeout.Stop()
	if n := p.guests.count(); n > 0 {
		p.config.Log.Info("draining", "connections", n, "timeout", p.tuning.Load().DrainTimeout.String())
	}
	select {
	case <-drained:
	case <-timeout.C:
		p.config.Log.Warn("connections did not end in time: they are cut", "connections", p.guests.count())
	}
	p.cut()
	<-drained
	return nil
}

// Close closes every port; a Publisher that is not run needs nothing else.
func (p *Publisher) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = closed
	for local, q := range p.ports {
		delete(p.ports, local)
		q.stop()
	}
}

// explain says what to do about the errors of listening that users meet.
func explain(err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "the port is in use by another program: stop it or publish another port"
	case errors.Is(err, syscall.EACCES):
		return "ports below 1024 need the capability CAP_NET_BIND_SERVICE: grant it or publish a higher port"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "the machine does not have this address"
	}
	return err.Error()
}
