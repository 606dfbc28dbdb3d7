package front

import (
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// How many documents clients may ask for. A document costs the module a
// millisecond, and an answer of six kilobytes is a cheap amplifier.
const (
	clientRate, clientBurst = 100, 200     // a second, and at once, for one client
	totalRate, totalBurst   = 20000, 20000 // the same for all of them
	// maxClients bounds what is remembered; those beyond share one account.
	maxClients = 4096
	// forgetEvery is how often what has no effect any more is looked for.
	forgetEvery = time.Second
	// A client with IPv6 has a network of its own, and any address in it.
	clientBits6 = 64
)

// A bucket is the theoretical arrival time of the generic cell rate algorithm:
// when its owner would be on schedule again if nothing more came. In the past it
// has no effect.
type bucket time.Time

// take counts one more if that is within the burst.
func (b *bucket) take(now time.Time, rate, burst int) bool {
	interval := time.Second / time.Duration(rate)
	next := time.Time(*b)
	if next.Before(now) {
		next = now
	}
	next = next.Add(interval)
	if next.Sub(now) > interval*time.Duration(burst) {
		return false
	}
	*b = bucket(next)
	return true
}

// A limiter says whether a client may have another document. It is safe for
// concurrent use.
type limiter struct {
	mu        sync.Mutex
	total     bucket
	others    bucket // of clients for whom there is no room
	clients   map[netip.Addr]*bucket
	forgotten time.Time
}

func newLimiter() *limiter { return &limiter{clients: make(map[netip.Addr]*bucket)} }

// allow counts a request. A client that is not valid is known to be many: only
// the total holds for it.
func (l *limiter) allow(client netip.Addr, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if client.IsValid() && !l.bucketLocked(client, now).take(now, clientRate, clientBurst) {
		return false
	}
	return l.total.take(now, totalRate, totalBurst)
}

func (l *limiter) bucketLocked(client netip.Addr, now time.Time) *bucket {
	if b := l.clients[client]; b != nil {
		return b
	}
	if len(l.clients) >= maxClients && now.Sub(l.forgotten) >= forgetEvery {
		l.forgotten = now
		for addr, b := range l.clients {
			if time.Time(*b).Before(now) {
				delete(l.clients, addr)
			}
		}
	}
	if len(l.clients) >= maxClients {
		return &l.others
	}
	b := new(bucket)
	l.clients[client] = b
	return b
}

// clientOf returns the address that the request's client is known by, not valid
// where it stands for many: behind the link's gateway, on loopback, or unknown.
func (f *Front) clientOf(r *http.Request) netip.Addr {
	addrPort, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	addr := addrPort.Addr().Unmap().WithZone("")
	if addr.IsLoopback() || slices.Contains(f.cfg.SharedAddrs, addr) {
		return netip.Addr{}
	}
	if addr.Is4() {
		return addr
	}
	network, err := addr.Prefix(clientBits6)
	if err != nil {
		return netip.Addr{}
	}
	return network.Addr()
}
