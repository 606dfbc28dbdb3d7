package gateway

import (
	"net/netip"
	"slices"
	"time"
)

// An Egress says which destinations enclaves may reach. Deny is stronger than
// Allow; an empty Allow is everything that is not the host's own.
type Egress struct {
	Allow, Deny []Destination
}

// judge says whether the destination is allowed, given what the enclave was told
// about names.
func (e Egress) judge(to netip.AddrPort, told *answers, now time.Time) refusal {
	is := func(d Destination) bool {
		return d.hasPort(to.Port()) && (d.containsAddr(to.Addr()) || told.holds(to.Addr(), d, now))
	}
	if i := slices.IndexFunc(e.Deny, is); i >= 0 {
		return refusal{causeDenied, "denied by --egress-deny " + e.Deny[i].String()}
	}
	if len(e.Allow) > 0 && !slices.ContainsFunc(e.Allow, is) {
		return refusal{causeNotAllowed, "not among what --egress-allow names"}
	}
	return refusal{}
}

// opens reports whether an entry of Allow that lies within the network, and so
// was written for it, contains the address and port. That is how an operator
// gives away what is otherwise the host's own; 0.0.0.0/0 does not.
func (e Egress) opens(network netip.Prefix, to netip.AddrPort) bool {
	return slices.ContainsFunc(e.Allow, func(d Destination) bool {
		return d.containsAddr(to.Addr()) && d.hasPort(to.Port()) &&
			network.Contains(d.network.Addr()) && d.network.Bits() >= network.Bits()
	})
}

// judgeNames says whether the gateway's resolver may tell an enclave about a
// name. chain is the name that was asked for and, once they are known, those
// that it is an alias of.
//
// A name that no flow may use is not looked up: a query carries what the enclave
// writes into it to whoever answers for the name.
func (e Egress) judgeNames(chain []string) refusal {
	for _, d := range e.Deny {
		if d.allPorts() && slices.ContainsFunc(chain, d.containsName) {
			return refusal{causeNameDenied, "denied by --egress-deny " + d.String()}
		}
	}
	if !e.onlyNames() {
		return refusal{}
	}
	if !slices.ContainsFunc(e.Allow, func(d Destination) bool { return d.containsName(chain[0]) }) {
		return refusal{causeNameNotAllowed, "not among the names of --egress-allow"}
	}
	return refusal{}
}

// onlyNames reports whether names are all that is allowed.
func (e Egress) onlyNames() bool {
	return len(e.Allow) > 0 && !slices.ContainsFunc(e.Allow, func(d Destination) bool { return !d.isName() })
}
