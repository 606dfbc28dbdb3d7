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
