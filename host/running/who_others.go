//go:build !linux

package running

import (
	"context"
	"net"
)

// whoKey is under which a context says who connected.
type whoKey struct{}

// WithPeer keeps nothing here.
func WithPeer(ctx context.Context, _ net.Conn) context.Context { return ctx }
