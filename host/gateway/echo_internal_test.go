package gateway

import (
	"net/netip"
	"testing"
	"time"
)

// TestEchoPolicy: ICMP has no port, so rules for some ports neither open nor close
// anything for it.
func TestEchoPolicy(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		to          string
		allow, deny string
		want        cause
	}{
		{"198.51.100.1", "", "", causeNone},
		{"198.51.100.1", "198.51.100.0/24:443", "", causeNotAllowed},
		{"198.51.100.1", "198.51.100.0/24:1-65535", "", causeNone},
		{"198.51.100.1", "198.51.100.0/24", "", causeNone},
		{"198.51.100.1", "203.0.113.0/24", "", causeNotAllowed},
		{"198.51.100.1", "", "198.51.100.0/24:443", causeNone},
		{"198.51.100.1", "198.51.100.0/24", "198.51.100.1", causeDenied},
		{"169.254.169.254", "0.0.0.0/0", "", causeMetadata},
		{"169.254.169.254", "169.254.169.254:80", "", causeMetadata},
		{"169.254.169.254", "169.254.169.254", "", causeNone},
		{"127.0.0.1", "127.0.0.1", "", causeLoopback},
		{"192.168.127.254", "", "", causeHostLoopback},
		{"192.168.127.2", "", "", causeLink},
		{"224.0.0.1", "", "", causeMulticast},
		{"255.255.255.255", "", "", causeUnroutable},
		{"fe80::1", "", "", causeLinkLocal},
		{"2001:db8::1", "", "", causeNone},
		{"64:ff9b::127.0.0.1", "", "", causeLoopback},
	} {
		p := policy{ipv6: true}
		for rule, list := range map[string]*[]Destination{tt.allow: &p.egress.Allow, tt.deny: &p.egress.Deny} {
			if rule == "" {
				continue
			}
			d, err := ParseDestination(rule)
			if err != nil {
				t.Fatal(err)
			}
			*list = append(*list, d)
		}
		if _, no := p.route(netip.AddrPortFrom(netip.MustParseAddr(tt.to), noPort)); no.cause != tt.want {
			t.Errorf("ping %s with allow %q, deny %q: %s, want %s", tt.to, tt.allow, tt.deny, no.cause, tt.want)
		}
	}
}

func TestEchoesExpire(t *testing.T) {
	t.Parallel()
	began := time.Now()
	s := &echoSocket{pending: map[uint16]pendingEcho{1: {since: began}, 2: {since: began.Add(time.Second)}}}
	s.expire(began.Add(echoPatience))
	if len(s.pending) != 2 {
		t.Errorf("%d wait before their time is over, want 2", len(s.pending))
	}
	s.expire(began.Add(echoPatience + time.Second))
	if _, waits := s.pending[2]; !waits || len(s.pending) != 1 {
		t.Errorf("%d wait, want the later one alone", len(s.pending))
	}
}
