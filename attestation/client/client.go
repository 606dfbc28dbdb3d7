// Package client connects to enclaves and hands out no connection whose other end
// has not been verified: as a Dialer, and as an http.RoundTripper. What is
// verified, package attestation says; what is expected, its caller's policy.
//
//	d, err := client.NewDialer(client.Config{Roots: roots, Policy: policy})
//	...
//	c := http.Client{Transport: client.NewTransport(d)}
//	answer, err := c.Get("https://service.example.com/")
package client

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/corridor-enclave/corridor/attestation"
)

const (
	// DefaultPinFor is how long a verified key is trusted until it is verified
	// again. It ends earlier where the document's certificates do.
	DefaultPinFor = time.Hour
	// nonceSize is what nitriding's endpoint takes, too.
	nonceSize = 20
)

// Config says what a Dialer accepts.
type Config struct {
	// Roots are the only certificates trusted; see attestation.AWSRoot.
	Roots []*x509.Certificate
	// Policy says which images are expected.
	Policy *attestation.Policy
	// MaxAge is how far a document's time may be from now; 0 means
	// attestation.DefaultMaxAge.
	MaxAge time.Duration
	// PinFor is how long a verified key is trusted; 0 means DefaultPinFor.
	PinFor time.Duration
	// Protocols are offered on connections, by their ALPN names; nil means HTTP/2
	// and HTTP/1.1.
	Protocols []string
	// Dial opens connections; nil means net.Dialer's.
	Dial DialFunc
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// A Dialer opens TLS connections to enclaves. On the first one to an address it
// fetches a document over a connection of its own, verifies it, and pins the keys
// that it names; until the pin ends, connections to these keys and to no other
// are handed out. It is safe for concurrent use.
type Dialer struct {
	cfg      Config
	verifier attestation.Verifier

	mu   sync.Mutex
	pins map[string]*pin // by address
}

// A pin is what was verified of one address. Its turn is held while that is done.
type pin struct {
	turn     chan struct{}
	endpoint attestation.Endpoint
	until    time.Time
}

// NewDialer returns a Dialer, or an error where cfg would trust nobody.
func NewDialer(cfg Config) (*Dialer, error) {
	if len(cfg.Roots) == 0 || cfg.Policy == nil {
		return nil, errors.New("client: a root and a policy are needed: without them nothing is verified")
	}
	if cfg.PinFor == 0 {
		cfg.PinFor = DefaultPinFor
	}
	if cfg.Protocols == nil {
		cfg.Protocols = []string{"h2", "http/1.1"}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Dialer{
		cfg: cfg, pins: make(map[string]*pin),
		verifier: attestation.Verifier{Roots: cfg.Roots, Now: cfg.Now},
	}, nil
}

// DialContext returns a connection, of type *tls.Conn, to the enclave at addr
// (HOST:PORT). An error that matches one of attestation's four verdicts means
// that the other end is not what the policy expects; trying again does not help,
// except after ErrNotFresh. Any other means that nothing could be found out.
func (d *Dialer) DialContext(ctx context.Context, _, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	endpoint, err := d.Verify(ctx, addr)
	if err != nil {
		return nil, err
	}
	conn, err := dialTLS(ctx, d.cfg.Dial, host, addr, d.cfg.Protocols)
	if err != nil {
		return nil, fmt.Errorf("client: %s: %w", addr, err)
	}
	if err := d.checkPeer(ctx, addr, endpoint, conn); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// checkPeer holds the connection against what was verified. Where it does not
// fit, the enclave may have been replaced since: once, it is verified anew.
func (d *Dialer) checkPeer(ctx context.Context, addr string, endpoint attestation.Endpoint, conn *tls.Conn) error {
	peer, err := describe(conn)
	if err != nil {
		return fmt.Errorf("client: %s: %w", addr, err)
	}
	if endpoint.Check(peer.Leaf) == nil {
		return nil
	}
	d.forget(addr, endpoint)
	if endpoint, err = d.Verify(ctx, addr); err != nil {
		return err
	}
	if err := endpoint.Check(peer.Leaf); err != nil {
		return fmt.Errorf("client: %s: %w", addr, err)
	}
	return nil
}

// Verify returns what is verified of the enclave at addr: from a pin that still
// holds, or from a document that it fetches. Errors are those of DialContext.
func (d *Dialer) Verify(ctx context.Context, addr string) (attestation.Endpoint, error) {
	p := d.pin(addr)
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return attestation.Endpoint{}, fmt.Errorf("client: %s: %w", addr, context.Cause(ctx))
	}
	if d.cfg.Now().Before(p.until) {
		return p.endpoint, nil
	}
	endpoint, until, err := d.fetchAndVerify(ctx, addr)
	if err != nil {
		return attestation.Endpoint{}, fmt.Errorf("client: %s: %w", addr, err)
	}
	p.endpoint, p.until = endpoint, until
	return endpoint, nil
}

func (d *Dialer) pin(addr string) *pin {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.pins[addr]
	if p == nil {
		p = &pin{turn: make(chan struct{}, 1)}
		d.pins[addr] = p
	}
	return p
}

// forget ends a pin, unless somebody has verified anew in the meantime.
func (d *Dialer) forget(addr string, stale attestation.Endpoint) {
	p := d.pin(addr)
	p.turn <- struct{}{}
	defer func() { <-p.turn }()
	if sameKeys(p.endpoint, stale) {
		p.until = time.Time{}
	}
}

func sameKeys(a, b attestation.Endpoint) bool {
	return slices.Equal(a.Keys, b.Keys) && (len(a.Keys) > 0 || slices.Equal(a.Certificates, b.Certificates))
}

func (d *Dialer) fetchAndVerify(ctx context.Context, addr string) (endpoint attestation.Endpoint, until time.Time, err error) {
	nonce := make([]byte, nonceSize)
	rand.Read(nonce) // never fails: it ends the program rather than return
	a, err := Fetch(ctx, d.cfg.Dial, &url.URL{Scheme: "https", Host: addr}, nonce)
	if err != nil {
		return endpoint, until, err
	}
	e, err := a.Evidence()
	if err != nil {
		return endpoint, until, err
	}
	document, err := d.verifier.Verify(e.Document)
	if err != nil {
		return endpoint, until, err
	}
	now := d.cfg.Now()
	if _, err := d.cfg.Policy.Check(document, now); err != nil {
		return endpoint, until, err
	}
	if err := a.Freshness(e, nonce, d.cfg.MaxAge).Check(document, now); err != nil {
		return endpoint, until, err
	}
	if endpoint, err = attestation.EndpointOf(document); err != nil {
		return endpoint, until, err
	}
	if err := endpoint.Check(a.Leaf); err != nil {
		return endpoint, until, err
	}
	until = now.Add(d.cfg.PinFor)
	for _, cert := range document.Chain {
		if cert.NotAfter.Before(until) {
			until = cert.NotAfter
		}
	}
	return endpoint, until, nil
}
