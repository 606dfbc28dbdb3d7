package gateway

import (
	"net/netip"
	"testing"
)

func TestPolicy(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		to       string
		loopback bool
		want     string // "" is refused
	}{
		{"169.254.169.254:80", false, ""},
		{"169.254.169.254:80", true, ""},
		{"169.254.0.1:80", false, ""},
		{"127.0.0.1:80", true, ""},
		{"127.8.0.1:80", true, ""},
		{"192.168.127.254:80", false, ""},
		{"192.168.127.254:80", true, "127.0.0.1:80"},
		{"192.168.127.1:22", true, ""},
		{"192.168.127.2:22", true, ""},
		{"192.168.127.255:9", true, ""},
		{"224.0.0.251:5353", false, ""},
		{"239.1.2.3:1", false, ""},
		{"240.0.0.1:1", false, ""},
		{"255.255.255.255:68", false, ""},
		{"0.0.0.0:80", false, ""},
		{"0.1.2.3:80", false, ""},
		{"[fe80::1]:80", false, ""},
		{"[2001:db8::1]:80", false, ""},
		{"[::ffff:127.0.0.1]:80", false, ""},
		{"198.51.100.1:443", false, "198.51.100.1:443"},
		{"10.0.0.1:443", false, "10.0.0.1:443"},
		{"192.168.126.1:443", false, "192.168.126.1:443"},
		{"239.255.255.255:1", false, ""},
	} {
		to, no := policy{hostLoopback: tt.loopback}.route(netip.MustParseAddrPort(tt.to))
		if tt.want == "" {
			if no.why == "" || no.cause == causeNone || to.IsValid() {
				t.Errorf("%s (host loopback %t) leads to %s, want it refused", tt.to, tt.loopback, to)
			}
			continue
		}
		if no != (refusal{}) || to.String() != tt.want {
			t.Errorf("%s (host loopback %t) = %s, %q; want %s", tt.to, tt.loopback, to, no.why, tt.want)
		}
	}
}

func TestPresentable(t *testing.T) {
	t.Parallel()
	for client, want := range map[string]string{
		"203.0.113.1:5":          "203.0.113.1:5",
		"[::ffff:203.0.113.1]:5": "203.0.113.1:5",
		"10.1.2.3:5":             "10.1.2.3:5",
		"127.0.0.1:5":            "",
		"192.168.127.9:5":        "",
		"169.254.1.1:5":          "",
		"0.0.0.0:5":              "",
		"[2001:db8::1]:5":        "",
	} {
		got := presentable(netip.MustParseAddrPort(client))
		if (want == "" && got.IsValid()) || (want != "" && got.String() != want) {
			t.Errorf("presentable(%s) = %s, want %q", client, got, want)
		}
	}
	if got := presentable(netip.AddrPort{}); got.IsValid() {
		t.Errorf("presentable of nothing = %s", got)
	}
}

func TestPendingDialsAreBoundedPerDestination(t *testing.T) {
	t.Parallel()
	flows := newTCPFlows(nil)
	slow, other := netip.MustParseAddrPort("198.51.100.1:80"), netip.MustParseAddrPort("198.51.100.2:80")
	for i := range maxPendingDials {
		if !flows.enter(slow) {
			t.Fatalf("dial %d refused", i)
		}
	}
	if flows.enter(slow) {
		t.Error("one dial too many is accepted")
	}
	if !flows.enter(other) {
		t.Error("another destination is refused")
	}
	flows.leave(slow)
	if !flows.enter(slow) {
		t.Error("no room after a dial has ended")
	}
	flows.leave(other)
	for range maxPendingDials {
		flows.leave(slow)
	}
	if len(flows.pending) != 0 {
		t.Errorf("%d destinations are remembered", len(flows.pending))
	}
}
