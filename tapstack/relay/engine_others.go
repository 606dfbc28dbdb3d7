//go:build !linux

package relay

import (
	"context"
	"net"
)

// An Engine is what relays share; here it is nothing.
type Engine struct{}

// Relay is the function Relay.
func (*Engine) Relay(ctx context.Context, a, b net.Conn, o Options) (Result, error) {
	return Relay(ctx, a, b, o)
}
