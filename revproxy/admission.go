package revproxy

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// An admission lets a bounded number of requests through, and a bounded number
// of others wait, the first come first, for a bounded time:
//
//	request ──► room? ──yes──────────────────────► with the app ──► leave
//	              │ no                                  ▲
//	              ▼                                     │ room in time
//	           queue full, or ──no──► waiting ──────────┘
//	           it lasts too long      │ too long
//	              │ yes               │
//	              ▼                   ▼
//	             503 at once         503
//
// How long it will last is known by how fast the queue has moved lately. Past what the app can do, waiting only makes answers late: those who are
// refused at once can go elsewhere.
type admission struct {
	room     chan struct{} // holds an item for each request with the app
	waiting  atomic.Int64
	queue    int64
	patience time.Duration
	clients  clients

	pace     atomic.Int64 // nanoseconds between two moves of the queue, lately; 0: not known
	watching sync.Mutex
	since    time.Time // when moves began to be counted
	moved    int64     // how many since
}

func newAdmission(c Config) *admission {
	return &admission{
		room:     make(chan struct{}, c.MaxConcurrent),
		queue:    int64(c.MaxQueued),
		patience: c.QueueTimeout,
		clients:  clients{max: c.MaxPerClient},
	}
}

// enter waits for room. The caller calls leave with the same client if there was
// some, and only then.
func (a *admission) enter(ctx context.Context, client netip.Addr) (failure, bool) {
	f, v := a.tries(client)
	if v == mustWait {
		return a.waits(ctx, client)
	}
	return f, v == mayPass
}

// A verdict is what becomes of a request that asks for room.
type verdict uint8

const (
	mayPass  verdict = iota // there was room
	mustWait                // waits has to be called
	mustGo                  // it is refused
)

// tries is enter, but it does not wait.
func (a *admission) tries(client netip.Addr) (failure, verdict) {
	if !a.clients.add(client) {
		return tooMany(), mustGo
	}
	select {
	case a.room <- struct{}{}:
		return failure{}, mayPass
	default:
	}
	var f failure
	switch n := a.waiting.Add(1); {
	case n > a.queue:
		f = crowded("as many requests wait as may")
	case n == 1:
		a.pace.Store(0) // another crowd, another pace
		return failure{}, mustWait
	case n*a.pace.Load() > int64(a.patience)*3/4: // what is just so is too late for half of them
		f = crowded("there will be no room within the time that requests wait")
	default:
		return failure{}, mustWait
	}
	a.waiting.Add(-1)
	a.clients.remove(client)
	return f, mustGo
}

// waits is the rest of enter for a request that must wait.
func (a *admission) waits(ctx context.Context, client netip.Addr) (f failure, ok bool) {
	defer a.waiting.Add(-1)
	timer := time.NewTimer(a.patience)
	defer timer.Stop()
	select {
	case a.room <- struct{}{}:
		return failure{}, true
	case <-timer.C:
		f = crowded("no room within the time that requests wait")
	case <-ctx.Done():
		f = clientGone()
	}
	a.clients.remove(client)
	return f, false
}

func (a *admission) leave(client netip.Addr) {
	<-a.room
	if a.waiting.Load() > 0 {
		a.moves()
	}
	a.clients.remove(client)
}

// moves takes down that somebody who waited has room. The pace is that of a while,
// because apps answer in bursts.
func (a *admission) moves() {
	a.watching.Lock()
	defer a.watching.Unlock()
	now := time.Now()
	if a.since.IsZero() || now.Sub(a.since) > a.patience {
		a.since, a.moved = now, 0 // nobody waited all that time, or it says too little
		return
	}
	a.moved++
	if d := now.Sub(a.since); d >= a.patience/4 {
		a.pace.Store(int64(d) / a.moved)
		a.since, a.moved = now, 0
	}
}

// clients counts the requests under way of each client. Its size is bounded by
// the number of requests.
type clients struct {
	max int // zero: nobody is counted

	mu    sync.Mutex
	under map[netip.Addr]int
}

// add reports whether a client may have one more. Who has no address is not
// counted.
func (c *clients) add(client netip.Addr) bool {
	if c.max == 0 || !client.IsValid() {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.under == nil {
		c.under = make(map[netip.Addr]int)
	}
	if c.under[client] >= c.max {
		return false
	}
	c.under[client]++
	return true
}

func (c *clients) remove(client netip.Addr) {
	if c.max == 0 || !client.IsValid() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.under[client]--
	if c.under[client] == 0 {
		delete(c.under, client)
	}
}

// whoIs is the client for the purpose of limits: an IPv6 user has a whole /64.
func whoIs(remote string) netip.Addr {
	ip, ok := clientIP(remote)
	if !ok || ip.Is4() {
		return ip
	}
	net, err := ip.Prefix(64)
	if err != nil {
		return ip
	}
	return net.Addr()
}
