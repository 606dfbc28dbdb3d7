package gateway_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/corridor-enclave/corridor/host/gateway"
)

// TestOutside: calls are judged as connections through the link are.
func TestOutside(t *testing.T) {
	t.Parallel()
	u := newUpstream(t)
	rule := func(text string) gateway.Destination {
		d, err := gateway.ParseDestination(text)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for _, tt := range []struct {
		name        string
		config      gateway.Config
		asks        string // a name or an address
		want, why   string
		err         error
		cause       string
		nobodyAsked bool
	}{
		{name: "metadata", asks: "169.254.169.254", err: gateway.ErrDenied, cause: "metadata"},
		{name: "loopback", asks: "127.0.0.1", err: gateway.ErrDenied, cause: "loopback"},
		{name: "the link itself", asks: "192.168.127.2", err: gateway.ErrDenied, cause: "link"},
		{name: "the host's loopback is off", asks: "host.containers.internal", err: gateway.ErrDenied, cause: "host-loopback"},
		{name: "the host's loopback is on", config: gateway.Config{HostLoopback: true}, asks: "host.containers.internal", want: "[127.0.0.1:443]"},
		{name: "a name that leads to the host's loopback", asks: "home.example", err: gateway.ErrDenied, cause: "host-loopback"},
		{name: "nobody", asks: "nobody.example", err: gateway.ErrNoName},
		{name: "a resolver that fails", asks: "other.example", err: gateway.ErrNoResolver},
		{name: "an address", asks: "203.0.113.9", want: "[203.0.113.9:443]"},
		{name: "a name", asks: "a.example", want: "[198.51.100.7:443]"},
		{name: "IPv6 is not to be had", asks: "2001:db8::1", err: gateway.ErrDenied, cause: "no-ipv6"},
		{
			name: "allowed by name", config: gateway.Config{Egress: gateway.Egress{Allow: []gateway.Destination{rule("*.example:443")}}},
			asks: "a.example", want: "[198.51.100.7:443]",
		},
		{
			name: "a name that no rule has is not asked for", config: gateway.Config{Egress: gateway.Egress{Allow: []gateway.Destination{rule("*.example:443")}}},
			asks: "secret.elsewhere", err: gateway.ErrDenied, cause: "name-not-allowed", nobodyAsked: true,
		},
		{
			name: "an address behind no name", config: gateway.Config{Egress: gateway.Egress{Allow: []gateway.Destination{rule("*.example:443")}}},
			asks: "198.51.100.7", err: gateway.ErrDenied, cause: "not-allowed",
		},
		{
			name: "another port", config: gateway.Config{Egress: gateway.Egress{Allow: []gateway.Destination{rule("*.example:80")}}},
			asks: "a.example", err: gateway.ErrDenied, cause: "not-allowed",
		},
		{
			name: "an alias of what is denied", config: gateway.Config{Egress: gateway.Egress{Deny: []gateway.Destination{rule("host.denied")}}},
			asks: "alias.example", err: gateway.ErrDenied, cause: "name-denied",
		},
		{
			name: "an address that is denied", config: gateway.Config{Egress: gateway.Egress{Deny: []gateway.Destination{rule("198.51.100.0/24")}}},
			asks: "a.example", err: gateway.ErrDenied, cause: "denied",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.config.Log, tt.config.DNS = slog.New(slog.DiscardHandler), []netip.AddrPort{u.at}
			tt.config.IPv6 = gateway.IPv6Off // whatever this machine has
			o := gateway.New(tt.config).Outside(t.Context(), 16)
			u.mu.Lock()
			before := len(u.ids)
			u.mu.Unlock()
			name, addr := tt.asks, netip.Addr{}
			if a, err := netip.ParseAddr(tt.asks); err == nil {
				name, addr = "", a
			}
			found, err := o.Find(name, addr, 443)
			if tt.err != nil {
				if !errors.Is(err, tt.err) || found != nil || (tt.cause != "" && o.Refusals()[tt.cause] == 0) {
					t.Errorf("%v, %v, %v; want %v because of %s", found, err, o.Refusals(), tt.err, tt.cause)
				}
			} else if err != nil || fmt.Sprint(found) != tt.want {
				t.Errorf("%v, %v; want %s", found, err, tt.want)
			}
			u.mu.Lock()
			defer u.mu.Unlock()
			if tt.nobodyAsked && len(u.ids) > before {
				t.Error("a resolver was told of the name")
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("%q", err)
			}
		})
	}
}
