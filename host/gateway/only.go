package gateway

import (
	"context"

	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// Only returns the CID of the only enclave that has a link. While there is none,
// it waits as long as ctx allows, then returns ErrAbsent.
func (g *Gateway) Only(ctx context.Context) (vsockconn.CID, error) {
	n, err := g.await(ctx, vsockconn.CIDAny)
	if err != nil {
		return 0, err
	}
	return n.cid, nil
}

// Attached reports whether the enclave has a link now.
func (g *Gateway) Attached(cid vsockconn.CID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.networks[cid]
	return n != nil && n.links > 0
}
