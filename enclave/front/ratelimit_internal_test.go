package front

import (
	"net/http"
	"net/netip"
	"testing"
	"time"
)

func address(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

func (l *limiter) takes(client netip.Addr, now time.Time, most int) int {
	for n := range most {
		if !l.allow(client, now) {
			return n
		}
	}
	return most
}

func TestLimiter(t *testing.T) {
	t.Parallel()
	now := time.Now()
	l := newLimiter()
	if got := l.takes(address(1), now, 1000); got != clientBurst {
		t.Errorf("a client gets %d documents at once, want %d", got, clientBurst)
	}
	if got := l.takes(address(2), now, 1000); got != clientBurst {
		t.Errorf("another client gets %d documents at once, want %d", got, clientBurst)
	}
	if got := l.takes(address(1), now.Add(time.Second), 1000); got != clientRate {
		t.Errorf("a second later it gets %d, want %d", got, clientRate)
	}
	if got := l.takes(address(1), now.Add(time.Hour), 1000); got != clientBurst {
		t.Errorf("an hour later it gets %d, want %d", got, clientBurst)
	}
	l = newLimiter()
	if got := l.takes(netip.Addr{}, now, 2*totalBurst); got != totalBurst {
		t.Errorf("many clients get %d documents at once, want %d", got, totalBurst)
	}
	if l.allow(address(1), now) {
		t.Error("the total does not hold for a client of its own")
	}
}

// TestLimiterForgets: there is room for new clients once old ones are still, and
// until then the new ones share an account.
func TestLimiterForgets(t *testing.T) {
	t.Parallel()
	now := time.Now()
	l := newLimiter()
	for i := range maxClients {
		if !l.allow(address(i), now) {
			t.Fatalf("client %d is refused", i)
		}
	}
	if got := l.takes(address(maxClients), now, 1000) + l.takes(address(maxClients+1), now, 1000); got != clientBurst {
		t.Errorf("clients beyond the room get %d documents, want %d between them", got, clientBurst)
	}
	later := now.Add(forgetEvery)
	if got := l.takes(address(maxClients+1), later, 1000); got != clientBurst || len(l.clients) > maxClients {
		t.Errorf("later one of them gets %d, and %d are remembered", got, len(l.clients))
	}
}

func TestClientOf(t *testing.T) {
	t.Parallel()
	f := &Front{cfg: Config{SharedAddrs: []netip.Addr{netip.MustParseAddr("192.168.127.1")}}}
	for remote, want := range map[string]string{
		"192.0.2.1:1234":            "192.0.2.1",
		"[::ffff:192.0.2.1]:1234":   "192.0.2.1",
		"[2001:db8:1:2:3::4]:1":     "2001:db8:1:2::",
		"[fe80::1%eth0]:1":          "fe80::",
		"192.168.127.1:1":           "invalid IP",
		"[::ffff:192.168.127.1]:99": "invalid IP",
		"127.0.0.1:1":               "invalid IP",
		"[::1]:1":                   "invalid IP",
		"vsock:3:99":                "invalid IP",
		"":                          "invalid IP",
	} {
		if got := f.clientOf(&http.Request{RemoteAddr: remote}).String(); got != want {
			t.Errorf("%q is known as %s, want %s", remote, got, want)
		}
	}
}
