package gateway

import (
	"net/netip"
	"strings"
	"testing"
)

func TestParseDestination(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"": "no IPv4 address", "example.com": "no IPv4 address", "::1": "no IPv4 address", "10.0.0.1/8": "did you mean 10.0.0.0/8?",
		"10.0.0.0/33": "no IPv4 address", "10.0.0.1:": "want a port", "10.0.0.1:0": "want a port", "10.0.0.1:65536": "want a port",
		"10.0.0.1:443-80": "wrong way round", "10.0.0.1:1-2-3": "want a port", "10.0.0.1:http": "want a port",
	} {
		if d, err := ParseDestination(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseDestination(%q) = %v, %v; want %q", text, d, err, want)
		}
	}
	for text, want := range map[string]string{
		"10.0.0.1": "10.0.0.1/32", "10.0.0.0/8": "10.0.0.0/8", "10.0.0.1:443": "10.0.0.1/32:443", "0.0.0.0/0:80-443": "0.0.0.0/0:80-443",
	} {
		if d, err := ParseDestination(text); err != nil || d.String() != want {
			t.Errorf("ParseDestination(%q) = %v, %v; want %s", text, d, err, want)
		}
	}
}

func TestEgress(t *testing.T) {
	t.Parallel()
	list := func(texts ...string) (all []Destination) {
		for _, text := range texts {
			d, err := ParseDestination(text)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, d)
		}
		return all
	}
	for _, tt := range []struct {
		name   string
		egress Egress
		to     string
		why    string
	}{
		{"no lists", Egress{}, "203.0.113.1:443", ""},
		{"denied", Egress{Deny: list("203.0.113.0/24")}, "203.0.113.1:443", "denied by --egress-deny 203.0.113.0/24"},
		{"beside what is denied", Egress{Deny: list("203.0.113.0/24")}, "203.0.114.1:443", ""},
		{"another port is denied", Egress{Deny: list("0.0.0.0/0:25")}, "203.0.113.1:443", ""},
		{"allowed", Egress{Allow: list("203.0.113.1:443")}, "203.0.113.1:443", ""},
		{"another port is allowed", Egress{Allow: list("203.0.113.1:443")}, "203.0.113.1:80", "not among what --egress-allow names"},
		{"the last port of a range", Egress{Allow: list("203.0.113.1:80-443")}, "203.0.113.1:443", ""},
		{"behind the range", Egress{Allow: list("203.0.113.1:80-443")}, "203.0.113.1:444", "not among"},
		{"allowed and denied", Egress{Allow: list("0.0.0.0/0"), Deny: list("203.0.113.1")}, "203.0.113.1:443", "denied"},
		{"metadata stays the host's own", Egress{Allow: list("169.254.169.254")}, "169.254.169.254:80", "link-local"},
	} {
		_, why := policy{egress: tt.egress}.route(netip.MustParseAddrPort(tt.to))
		if (why == "") != (tt.why == "") || !strings.Contains(why, tt.why) {
			t.Errorf("%s: refused because %q, want %q", tt.name, why, tt.why)
		}
	}
}

// FuzzParseDestination: what is accepted is read the same as it is written.
func FuzzParseDestination(f *testing.F) {
	f.Add("10.0.0.0/8:80-443")
	f.Add("1.2.3.4")
	f.Fuzz(func(t *testing.T, text string) {
		d, err := ParseDestination(text)
		if err != nil {
			return
		}
		if again, err := ParseDestination(d.String()); err != nil || again != d {
			t.Fatalf("%q is %v, which is read as %v, %v", text, d, again, err)
		}
	})
}
