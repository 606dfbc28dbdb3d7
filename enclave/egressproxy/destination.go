package egressproxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"strconv"
	"sync/atomic"
	"syscall"

	"github.com/corridor-enclave/corridor/enclave/egress"
	"github.com/corridor-enclave/corridor/revproxy"
)

// errTooMany reports that every destination that may be kept has requests under
// way.
var errTooMany = errors.New("as many destinations are in use as may be")

// A destination has a pool of connections of its own. Its key is where it is.
type destination struct {
	address     string // HOST:PORT, as Dial takes it
	authority   string // the same, as the Host field has it
	proxy       *revproxy.Proxy
	connections atomic.Uint64 // made, each with a handshake

	// Both belong to the Proxy's lock.
	under int    // requests
	used  uint64 // when it was last asked for, in requests
}

// Counts are of one destination since it was first asked for.
type Counts struct {
	Requests    uint64
	Connections uint64 // handshakes
	Failures    uint64 // requests that the destination did not answer
	Refused     uint64 // requests that were not passed on for another reason
}

// Counts are those of each destination that is kept, at most MaxDestinations, and
// of all others together under "other".
func (p *Proxy) Counts() map[string]Counts {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make(map[string]Counts, len(p.destinations)+1)
	for address, d := range p.destinations {
		all[address] = d.counts()
	}
	if p.dropped != (Counts{}) {
		all["other"] = p.dropped
	}
	return all
}

func (d *destination) counts() Counts {
	c := d.proxy.Counts()
	return Counts{Requests: c.Requests, Connections: d.connections.Load(), Failures: c.AppFailures, Refused: c.ClientFaults + c.ClientGone}
}

func (c Counts) plus(o Counts) Counts {
	return Counts{
		Requests: c.Requests + o.Requests, Connections: c.Connections + o.Connections,
		Failures: c.Failures + o.Failures, Refused: c.Refused + o.Refused,
	}
}

// take returns the destination, with one more request under way.
func (p *Proxy) take(to egress.Destination) (*destination, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	d := p.destinations[to.String()]
	if d == nil {
		if len(p.destinations) >= p.cfg.MaxDestinations && !p.makeRoom() {
			return nil, errTooMany
		}
		var err error
		if d, err = p.newDestination(to); err != nil {
			return nil, err
		}
		p.destinations[d.address] = d
	}
	d.under++
	d.used = p.asked
	return d, nil
}

func (p *Proxy) leave(d *destination) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d.under--
}

// makeRoom drops the destination without requests that was not asked for for the
// longest.
func (p *Proxy) makeRoom() bool {
	var oldest *destination
	for _, d := range p.destinations {
		if d.under == 0 && (oldest == nil || d.used < oldest.used) {
			oldest = d
		}
	}
	if oldest == nil {
		return false
	}
	p.dropped = p.dropped.plus(oldest.counts())
	oldest.proxy.Close()
	delete(p.destinations, oldest.address)
	return true
}

func (p *Proxy) newDestination(to egress.Destination) (*destination, error) {
	d := &destination{address: to.String(), authority: to.String()}
	if host, port, err := net.SplitHostPort(d.address); err == nil && port == strconv.Itoa(443) {
		if d.authority = host; to.Addr.Is6() {
			d.authority = "[" + host + "]"
		}
	}
	config := &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: p.cfg.Roots, ServerName: to.Host(),
		// One connection for each request that is under way: a slow answer holds up
		// no other, and the pool is that of package revproxy.
		NextProtos:         []string{"http/1.1"},
		ClientSessionCache: tls.NewLRUClientSessionCache(maxIdle),
	}
	var err error
	d.proxy, err = revproxy.New(revproxy.Config{
		Apps: []*url.URL{{Scheme: "http", Host: d.authority}}, Outward: true, Log: p.cfg.Log.With("part", "egress proxy", "to", d.address),
		MaxConcurrent: maxConcurrent, MaxQueued: maxQueued, MaxIdleConns: maxIdle,
		IdleConnTimeout: keepTimeout, DialTimeout: connectTimeout,
		Dial: func(ctx context.Context) (net.Conn, error) {
			conn, err := p.cfg.Dial(ctx, "tcp", d.address)
			if err != nil {
				return nil, err
			}
			s, err := secured(ctx, conn, config)
			if err != nil {
				return nil, err
			}
			d.connections.Add(1)
			return s, nil
		},
	})
	return d, err
}

// A secureConn shows the socket below TLS, so that a pool can see whether the
// other side has closed it: between two exchanges a server sends nothing else.
type secureConn struct {
	*tls.Conn
	below net.Conn
}

// SyscallConn is for looking whether anything came, not for reading it.
func (c *secureConn) SyscallConn() (syscall.RawConn, error) {
	s, ok := c.below.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return s.SyscallConn()
}
