package gateway

import (
	"log/slog"
	"net/netip"
	"testing"
)

// TestRulesChangeForEnclavesThatAreThere: policies, names and resolvers that were
// made before follow.
func TestRulesChangeForEnclavesThatAreThere(t *testing.T) {
	t.Parallel()
	g := New(Config{Log: slog.New(slog.DiscardHandler), DNS: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")}})
	before := g.newPolicy()
	outside := g.Outside(t.Context(), 16)
	site, alias := netip.MustParseAddrPort("198.51.100.7:443"), netip.MustParseAddrPort("192.168.127.254:80")
	judge := func() (destination, call, loopback cause) {
		_, a := before.route(site)
		_, b := outside.policy.route(site)
		_, c := before.route(alias)
		return a.cause, b.cause, c.cause
	}
	if a, b, c := judge(); a != causeNone || b != causeNone || c != causeHostLoopback {
		t.Errorf("at first: %s, %s, %s", a, b, c)
	}
	g.SetRules(Rules{HostLoopback: true, Egress: Egress{Deny: rules(t, "198.51.100.0/24", "*.evil.test")}})
	if a, b, c := judge(); a != causeDenied || b != causeDenied || c != causeNone {
		t.Errorf("denied: %s, %s, %s", a, b, c)
	}
	if no := outside.dns.live.egress(outside.dns.egress).judgeNames([]string{canonical("x.evil.test.")}); no.cause != causeNameDenied {
		t.Errorf("a name that is denied: %s", no.cause)
	}
	if got := before.answers.rulesFor([]string{canonical("x.evil.test.")}); len(got) != 1 {
		t.Errorf("the rules of a name: %v", got)
	}
	if got := g.resolvers.given(); len(got) != 0 {
		t.Errorf("resolvers: %v", got)
	}
	g.SetRules(Rules{})
	if a, b, c := judge(); a != causeNone || b != causeNone || c != causeHostLoopback {
		t.Errorf("in the end: %s, %s, %s", a, b, c)
	}
}
