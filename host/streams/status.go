package streams

import (
	"slices"
	"strings"
	"sync/atomic"

	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// Counts is what a Dialer did.
type Counts struct {
	Ready     map[vsockconn.Addr]int // streams that wait for a client now
	Taken     uint64                 // clients that got one of those
	Connected uint64                 // streams that were made, ahead of time or not
	Failed    uint64                 // attempts to make one
	Died      uint64                 // streams that ended before a client needed them
}

// Endpoints returns the keys of Ready in a stable order.
func (c Counts) Endpoints() []vsockconn.Addr {
	var all []vsockconn.Addr
	for to := range c.Ready {
		all = append(all, to)
	}
	slices.SortFunc(all, func(a, b vsockconn.Addr) int { return strings.Compare(a.String(), b.String()) })
	return all
}

// counters are the live form of Counts.
type counters struct{ taken, connected, failed, died atomic.Uint64 }

// Counts returns the counters of now.
func (d *Dialer) Counts() Counts {
	c := Counts{
		Ready: map[vsockconn.Addr]int{}, Taken: d.counts.taken.Load(), Connected: d.counts.connected.Load(),
		Failed: d.counts.failed.Load(), Died: d.counts.died.Load(),
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for to, p := range d.pools {
		c.Ready[to] = len(p.ready)
	}
	return c
}
