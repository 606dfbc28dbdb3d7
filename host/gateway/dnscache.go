package gateway

import (
	"container/list"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/corridor-enclave/corridor/tapstack/exposition"
)

const (
	// cacheBytes bounds the answers that are kept for one enclave, and
	// cacheLargest one of them, counted as they go over the wire.
	cacheBytes   = 1 << 20
	cacheLargest = 16 << 10
	// cacheEntry is what each answer costs beside its bytes.
	cacheEntry = 512
	// cacheLongest is the longest time that an answer is kept, and what longer
	// times to live are told as; cacheNegative the same for an answer that there is
	// nothing (RFC 2308, section 5).
	cacheLongest  = time.Hour
	cacheNegative = 5 * time.Minute
)

// DNSStats counts what the gateway's resolver did for one enclave.
type DNSStats struct {
	Queries   uint64              // that came
	Cached    uint64              // answered from the cache
	Failed    uint64              // answered with SERVFAIL: no resolver answered, or too many queries waited
	Forwarded exposition.Snapshot // how long the host's resolvers took for the others
	Kept      int                 // answers in the cache now
	Held      int                 // addresses that stand for a name of an egress rule now
	Evicted   uint64              // of those, that had to make room for others
}

// dnsCounters are the live form of DNSStats.
type dnsCounters struct {
	queries, cached, failed atomic.Uint64
	forwarded               *exposition.Histogram
}

// A dnsCache keeps answers as long as they say. Each enclave has one of its own:
// from the time that an answer takes, one could otherwise tell what another asked.
type dnsCache struct {
	mu      sync.Mutex
	bytes   int
	entries map[cacheKey]*list.Element // of *cached
	order   list.List                  // the one that was used last is at the front
}

// A cacheKey is all of a query that an answer depends on.
type cacheKey struct {
	name          string
	kind, class   uint16
	recursion     bool // desired
	authenticated bool // bit AD
	unchecked     bool // bit CD
	extended      bool // has an OPT record
	signed        bool // bit DO
}

// A cached is an answer and when it was given.
type cached struct {
	key    cacheKey
	answer *dns.Msg // never changed
	size   int
	since  time.Time
	until  time.Time
}

func newDNSCache() *dnsCache { return &dnsCache{entries: map[cacheKey]*list.Element{}} }

// keyOf returns the key of a query, or false if its answer is for this asker and
// this moment alone: options of EDNS may say anything.
func keyOf(q *dns.Msg) (cacheKey, bool) {
	question := q.Question[0]
	key := cacheKey{
		name: canonical(question.Name), kind: question.Qtype, class: question.Qclass,
		recursion: q.RecursionDesired, authenticated: q.AuthenticatedData, unchecked: q.CheckingDisabled,
	}
	if o := q.IsEdns0(); o != nil {
		if len(o.Option) > 0 || o.Version() != 0 {
			return cacheKey{}, false
		}
		key.extended, key.signed = true, o.Do()
	}
	return key, true
}

// get returns a copy of the answer with what is left of its times to live, or nil.
func (c *dnsCache) get(q *dns.Msg, now time.Time) *dns.Msg {
	key, ok := keyOf(q)
	if !ok {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[key]
	if e == nil {
		return nil
	}
	kept := e.Value.(*cached)
	if !now.Before(kept.until) {
		c.remove(e)
		return nil
	}
	c.order.MoveToFront(e)
	a := kept.answer.Copy()
	age := uint32(now.Sub(kept.since) / time.Second)
	eachRecord(a, func(h *dns.RR_Header) { h.Ttl -= min(age, h.Ttl) })
	return a
}

// put keeps the answer, if it may be kept. It shortens times to live in it that
// are too long to believe.
func (c *dnsCache) put(q, a *dns.Msg, now time.Time) {
	longest := uint32(cacheLongest / time.Second)
	eachRecord(a, func(h *dns.RR_Header) { h.Ttl = min(h.Ttl, longest) })
	key, ok := keyOf(q)
	keep := lifetime(a)
	size := a.Len() + cacheEntry
	if !ok || keep <= 0 || size > cacheLargest {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[key]; e != nil {
		c.remove(e)
	}
	c.entries[key] = c.order.PushFront(&cached{key: key, answer: a.Copy(), size: size, since: now, until: now.Add(keep)})
	for c.bytes += size; c.bytes > cacheBytes; {
		c.remove(c.order.Back())
	}
}

func (c *dnsCache) remove(e *list.Element) {
	kept := c.order.Remove(e).(*cached)
	delete(c.entries, kept.key)
	c.bytes -= kept.size
}

func (c *dnsCache) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.entries)
}

// lifetime is how long an answer may be kept: as long as its first record to end,
// and if it says that there is nothing, as long as the zone allows. 0 is not at
// all, which is so for everything that is not an answer.
func lifetime(a *dns.Msg) time.Duration {
	if a.Truncated || (a.Rcode != dns.RcodeSuccess && a.Rcode != dns.RcodeNameError) {
		return 0
	}
	shortest := uint32(cacheLongest / time.Second)
	eachRecord(a, func(h *dns.RR_Header) { shortest = min(shortest, h.Ttl) })
	if a.Rcode == dns.RcodeSuccess && len(a.Answer) > 0 {
		return time.Duration(shortest) * time.Second
	}
	for _, r := range a.Ns {
		if soa, ok := r.(*dns.SOA); ok {
			return min(cacheNegative, time.Duration(min(shortest, soa.Minttl))*time.Second)
		}
	}
	return 0
}

// eachRecord calls f for the header of each record that has a time to live.
func eachRecord(m *dns.Msg, f func(*dns.RR_Header)) {
	for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, r := range section {
			if h := r.Header(); h.Rrtype != dns.TypeOPT {
				f(h)
			}
		}
	}
}
