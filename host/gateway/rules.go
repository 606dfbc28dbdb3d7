package gateway

import (
	"net/netip"
	"sync/atomic"
)

// Rules are what of an enclave's policy may change while it has a network. New
// flows, calls and queries are judged by the new ones; what is open stays open.
type Rules struct {
	HostLoopback bool
	Egress       Egress
	// DNS are the resolvers that queries go to; none means those of ResolvConf.
	DNS []netip.AddrPort
}

// SetRules changes the rules of all enclaves.
func (g *Gateway) SetRules(r Rules) {
	g.rules.Store(&r)
	g.resolvers.fix(r.DNS)
}

// A live is the rules of now; the zero value has none.
type live struct{ rules *atomic.Pointer[Rules] }

// egress returns the egress policy of now, or the one that is given if there are
// no rules.
func (l live) egress(otherwise Egress) Egress {
	if l.rules == nil {
		return otherwise
	}
	return l.rules.Load().Egress
}

// hostLoopback is as egress.
func (l live) hostLoopback(otherwise bool) bool {
	if l.rules == nil {
		return otherwise
	}
	return l.rules.Load().HostLoopback
}
