package client

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/corridor-enclave/corridor/attestation"
)

// A Transport sends requests to enclaves that its Dialer has verified, over
// HTTP/2 where they speak it. Before each request it makes sure that the pin
// still holds; where an enclave's keys have changed, connections to the old ones
// get no further requests. It refuses URLs that are not https. It implements
// http.RoundTripper and is safe for concurrent use.
type Transport struct {
	dialer *Dialer

	mu       sync.Mutex
	current  *http.Transport
	verified map[string]attestation.Endpoint // by address, of the current connections
}

// NewTransport returns a Transport that connects by d.
func NewTransport(d *Dialer) *Transport {
	return &Transport{dialer: d, current: newHTTP(d), verified: make(map[string]attestation.Endpoint)}
}

func newHTTP(d *Dialer) *http.Transport {
	return &http.Transport{
		DialTLSContext:        d.DialContext,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   64,
		IdleConnTimeout:       90 * time.Second,
		ExpectContinueTimeout: time.Second,
	}
}

// RoundTrip sends one request. Errors that match one of attestation's verdicts
// mean that it was not sent.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" {
		closeBody(r)
		return nil, fmt.Errorf("client: %s://%s: only https can be verified", r.URL.Scheme, r.URL.Host)
	}
	addr := Addr(r.URL)
	endpoint, err := t.dialer.Verify(r.Context(), addr)
	if err != nil {
		closeBody(r)
		return nil, err
	}
	return t.connections(addr, endpoint).RoundTrip(r)
}

func closeBody(r *http.Request) {
	if r.Body != nil {
		r.Body.Close()
	}
}

// connections returns the connections for an address, all new ones if its keys
// are not those of the ones there are.
func (t *Transport) connections(addr string, endpoint attestation.Endpoint) *http.Transport {
	t.mu.Lock()
	defer t.mu.Unlock()
	before, known := t.verified[addr]
	t.verified[addr] = endpoint
	if known && !sameKeys(before, endpoint) {
		t.current.CloseIdleConnections() // those in use close when they are done
		t.current = newHTTP(t.dialer)
	}
	return t.current
}

// CloseIdleConnections closes the connections on which nothing is under way.
func (t *Transport) CloseIdleConnections() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.current.CloseIdleConnections()
}
