package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/miekg/dns"

	"github.com/corridor-enclave/corridor/tapstack/exposition"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

var (
	// ErrDenied reports a destination, or a name, that the egress policy refuses.
	// It will be refused again.
	ErrDenied = errors.New("gateway: denied by the egress policy")
	// ErrNoName reports a name that does not exist or has no address.
	ErrNoName = errors.New("gateway: no such name")
	// ErrNoResolver reports that no resolver answered. It may be tried again.
	ErrNoResolver = errors.New("gateway: no resolver answered")
)

// An Outside is what one enclave may reach where it needs no network for it: by
// calls on streams of their own. The policy is that of its link, names are asked
// of the same resolvers under the same rules, and those of the gateway's own mean
// the same.
type Outside struct {
	policy policy
	dns    *dnsServer
}

// Outside returns what the enclave may reach until ctx ends.
func (g *Gateway) Outside(ctx context.Context, cid vsockconn.CID) *Outside {
	p := g.newPolicy()
	p.ipv6 = g.hasIPv6()
	return &Outside{policy: p, dns: &dnsServer{
		ctx: ctx, egress: p.egress, live: p.live, answers: p.answers,
		refusals:  newRefusals(g.log.With("cid", uint32(cid), "part", "calls")),
		counts:    dnsCounters{forwarded: exposition.NewDurations()},
		resolvers: g.resolvers, cache: newDNSCache(), slots: make(chan struct{}, maxQueries),
	}}
}

// newPolicy is a policy that has learned nothing yet.
func (g *Gateway) newPolicy() policy {
	now := live{&g.rules}
	a := newAnswers(g.config.Egress)
	a.live = now
	return policy{ipv6: g.config.IPv6 != IPv6Off, answers: a, live: now}
}

// Find returns where the host is to connect to for a call to name, or if that is
// empty, to addr: one address at least, the first the best. The error is
// ErrDenied, ErrNoName or ErrNoResolver, with the reason.
func (o *Outside) Find(name string, addr netip.Addr, port uint16) ([]netip.AddrPort, error) {
	addrs, what := []netip.Addr{addr}, addr.String()
	if name != "" {
		var err error
		if addrs, err = o.resolve(name); err != nil {
			return nil, err
		}
		what = strconv.Quote(name)
	}
	var found []netip.AddrPort
	var first refusal
	for _, a := range addrs {
		to, no := o.policy.route(netip.AddrPortFrom(a, port))
		if no.cause == causeNone {
			found = append(found, to)
		} else if first.cause == causeNone {
			first = no
		}
	}
	if len(found) > 0 {
		return found, nil
	}
	o.dns.refusals.note("call", fmt.Sprintf("%s:%d", what, port), first)
	return nil, fmt.Errorf("%w: %s", ErrDenied, first.why)
}

// resolve asks as the enclave's own resolver would.
func (o *Outside) resolve(name string) ([]netip.Addr, error) {
	types := []uint16{dns.TypeA}
	if o.policy.ipv6 {
		types = append(types, dns.TypeAAAA)
	}
	var addrs []netip.Addr
	failed := error(nil)
	for _, kind := range types {
		a := o.dns.answer(new(dns.Msg).SetQuestion(dns.Fqdn(name), kind), false)
		switch a.Rcode {
		case dns.RcodeSuccess, dns.RcodeNameError:
		case dns.RcodeRefused:
			return nil, fmt.Errorf("%w: the name is refused", ErrDenied)
		default:
			failed = fmt.Errorf("%w for %s", ErrNoResolver, name)
		}
		for _, r := range a.Answer {
			if addr, ok := addrOf(r); ok {
				addrs = append(addrs, addr)
			}
		}
	}
	if len(addrs) == 0 && failed == nil {
		failed = fmt.Errorf("%w: %s", ErrNoName, name)
	}
	if len(addrs) == 0 {
		return nil, failed
	}
	return addrs, nil
}

// Refusals are what the enclave did not get, by cause.
func (o *Outside) Refusals() map[string]uint64 { return o.dns.refusals.byCause() }
