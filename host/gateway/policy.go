package gateway

import (
	"net/netip"
	"time"

	"github.com/corridor-enclave/corridor/tapstack"
)

// A cause is why an enclave did not get what it asked for. There are few, so that
// each can have a counter.
type cause int

const (
	causeNone cause = iota
	causeHostLoopback
	causeLink
	causeMetadata
	causeLinkLocal
	causeLocal
	causeLoopback
	causeMulticast
	causeUnroutable
	causeIPv6
	causeDenied
	causeNotAllowed
	causeTooMany
	causePending
	causeNameDenied
	causeNameNotAllowed
	causeNoPing
	causes
)

// String names the cause as metrics show it.
func (c cause) String() string {
	return [causes]string{
		"none", "host-loopback", "link", "metadata", "link-local", "private-ipv6", "loopback", "multicast", "unroutable", "no-ipv6",
		"denied", "not-allowed", "too-many", "too-many-pending", "name-denied", "name-not-allowed", "no-ping-socket",
	}[c]
}

// A refusal is why something is refused; the zero value is that it is not.
type refusal struct {
	cause cause
	why   string // for the log
}

// A policy decides where an enclave may connect to. What it can reach is what
// the host can reach, except for what is the host's alone.
type policy struct {
	hostLoopback bool
	ipv6         bool
	egress       Egress
	answers      *answers // nil if no rule is a name
	live         live     // stronger than hostLoopback and egress
}

// A special is a network that no enclave reaches because it is allowed
// everything.
type special struct {
	network  netip.Prefix
	cause    cause
	why      string
	openable bool // by a rule that lies within it
}

// specials are looked through in order. No name opens any of them: what a name
// stands for is said by whoever owns it.
func specials() []special {
	const (
		metadata   = "the instance metadata service gives out this instance's own credentials"
		linkLocal  = "link-local addresses are the host's own"
		local      = "private IPv6 addresses are the host's own"
		loopback   = "loopback is the host's own"
		multicast  = "multicast is not carried"
		unroutable = "not an address that can be connected to"
	)
	return []special{
		{netip.MustParsePrefix("169.254.169.254/32"), causeMetadata, metadata, true},
		{netip.MustParsePrefix("fd00:ec2::254/128"), causeMetadata, metadata, true},
		{netip.MustParsePrefix("169.254.0.0/16"), causeLinkLocal, linkLocal, true},
		{netip.MustParsePrefix("fe80::/10"), causeLinkLocal, linkLocal, false}, // they need a zone
		{netip.MustParsePrefix("fc00::/7"), causeLocal, local, true},
		{netip.MustParsePrefix("fec0::/10"), causeLocal, local, true}, // RFC 3879
		{netip.MustParsePrefix("127.0.0.0/8"), causeLoopback, loopback, false},
		{netip.MustParsePrefix("224.0.0.0/4"), causeMulticast, multicast, false},
		{netip.MustParsePrefix("ff00::/8"), causeMulticast, multicast, false},
		// "This network", which Linux takes for the machine itself, and with the
		// broadcast address what is reserved (RFC 6890).
		{netip.MustParsePrefix("0.0.0.0/8"), causeUnroutable, unroutable, false},
		{netip.MustParsePrefix("240.0.0.0/4"), causeUnroutable, unroutable, false},
		// Unspecified, loopback, and every form that hides an IPv4 address: mapped,
		// compatible, 6to4, Teredo, and NAT64 that is local to a site. That of the
		// well-known prefix is judged by what it hides.
		{netip.MustParsePrefix("::1/128"), causeLoopback, loopback, false},
		{netip.MustParsePrefix("::/64"), causeUnroutable, unroutable, false},
		{netip.MustParsePrefix("64:ff9b:1::/48"), causeUnroutable, unroutable, true},
		{netip.MustParsePrefix("2002::/16"), causeUnroutable, unroutable, false},
		{netip.MustParsePrefix("2001::/32"), causeUnroutable, unroutable, false},
	}
}

// nat64 is the well-known prefix that stands for all of IPv4 (RFC 6052, section
// 2.1); the address is in the last four bytes.
func nat64() netip.Prefix { return netip.MustParsePrefix("64:ff9b::/96") }

// route returns the address that the host connects to for a flow of the enclave,
// or why it may not.
func (p policy) route(destination netip.AddrPort) (to netip.AddrPort, no refusal) {
	p.hostLoopback, p.egress = p.live.hostLoopback(p.hostLoopback), p.live.egress(p.egress)
	addr := destination.Addr()
	switch {
	case !addr.IsValid() || addr.Zone() != "":
		return netip.AddrPort{}, refusal{causeUnroutable, "not an address that can be connected to"}
	case addr == tapstack.HostAliasAddr():
		if !p.hostLoopback {
			return netip.AddrPort{}, refusal{causeHostLoopback, "the host's loopback is off (--host-loopback)"}
		}
		// No name opens it: whoever owns one could lead it here.
		if no := p.egress.judge(destination, nil, time.Time{}); no.cause != causeNone {
			return netip.AddrPort{}, no
		}
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), destination.Port()), refusal{}
	case tapstack.Subnet().Contains(addr) || tapstack.Subnet6().Contains(addr):
		return netip.AddrPort{}, refusal{causeLink, "nothing listens there: it is the link itself"}
	case addr.Is6() && !p.ipv6:
		return netip.AddrPort{}, refusal{causeIPv6, "IPv6 is off, or not to be had here (--ipv6)"}
	}
	if no := p.judge(destination); no.cause != causeNone {
		return netip.AddrPort{}, no
	}
	return destination, refusal{}
}

// judge applies the address rules, which no name can weaken, then the operator's.
func (p policy) judge(to netip.AddrPort) refusal {
	for _, s := range specials() {
		if s.network.Contains(to.Addr()) && (!s.openable || !p.egress.opens(s.network, to)) {
			return refusal{s.cause, s.why}
		}
	}
	if nat64().Contains(to.Addr()) {
		hidden := netip.AddrFrom4([4]byte(to.Addr().AsSlice()[12:]))
		inner := policy{egress: Egress{Deny: p.egress.Deny}, answers: p.answers}
		if _, no := inner.route(netip.AddrPortFrom(hidden, to.Port())); no.cause != causeNone {
			return no
		}
	}
	return p.egress.judge(to, p.answers, time.Now())
}
