package gateway

import (
	"net/netip"
	"sync"
	"time"

	"github.com/corridor-enclave/corridor/tapstack"
)

// A policy decides where enclaves may connect to. What an enclave can reach is
// what the host can reach, except for what is the host's alone.
type policy struct {
	hostLoopback bool
	egress       Egress
}

// route returns the address that the host connects to for a flow of an enclave,
// or why it may not.
func (p policy) route(destination netip.AddrPort) (to netip.AddrPort, why string) {
	addr := destination.Addr()
	switch {
	case addr == tapstack.HostAliasAddr():
		if !p.hostLoopback {
			return netip.AddrPort{}, "the host's loopback is off (--host-loopback)"
		}
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), destination.Port()), ""
	case tapstack.Subnet().Contains(addr):
		return netip.AddrPort{}, "nothing listens there: it is the link itself"
	case addr.IsLinkLocalUnicast():
		// Among them the instance metadata service, which gives out the parent
		// instance's own credentials.
		return netip.AddrPort{}, "link-local addresses, with the instance metadata, are the host's own"
	case addr.IsLoopback():
		return netip.AddrPort{}, "loopback is the host's own"
	case addr.IsMulticast():
		return netip.AddrPort{}, "multicast is not carried"
	case !addr.Is4() || addr.IsUnspecified() || reserved(addr):
		return netip.AddrPort{}, "not an address that can be connected to"
	}
	return destination, p.egress.refuses(destination)
}

// reserved reports addresses of 0.0.0.0/8 ("this network", which Linux takes for
// the machine itself) and 240.0.0.0/4 (with the broadcast address), RFC 6890.
func reserved(addr netip.Addr) bool {
	first := addr.As4()[0]
	return first == 0 || first >= 240
}

// logEvery is the shortest time between two lines of the same kind that an
// enclave or a client can cause at will.
const logEvery = 10 * time.Second

// A sometimes lets one event through per logEvery and counts the others.
type sometimes struct {
	mu      sync.Mutex
	next    time.Time
	skipped int
}

func newSometimes() *sometimes { return &sometimes{} }

// now reports whether the event at t may be logged, and how many before it were
// not.
func (s *sometimes) now(t time.Time) (skipped int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.Before(s.next) {
		s.skipped++
		return 0, false
	}
	skipped, s.skipped = s.skipped, 0
	s.next = t.Add(logEvery)
	return skipped, true
}
