//go:build !linux

package ping

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
)

// A Socket cannot be opened here.
type Socket struct{}

// Open fails.
func Open(bool) (*Socket, error) {
	return nil, fmt.Errorf("ping: sockets on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

// Send fails.
func (s *Socket) Send(netip.Addr, int, uint16, []byte) error { return errors.ErrUnsupported }

// Receive fails.
func (s *Socket) Receive() (Answer, error) { return Answer{}, errors.ErrUnsupported }

// Close does nothing.
func (s *Socket) Close() error { return nil }
