package gateway

import (
	"fmt"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// cacheTime is when the tests of the cache begin.
func cacheTime() time.Time { return time.Unix(1000, 0) }

func TestCacheKeepsOnlyAnswers(t *testing.T) {
	t.Parallel()
	soa := func(ttl, least uint32) []dns.RR {
		return []dns.RR{&dns.SOA{Hdr: dns.RR_Header{Name: "test.", Rrtype: dns.TypeSOA, Ttl: ttl}, Minttl: least}}
	}
	for _, tt := range []struct {
		name string
		msg  dns.Msg
		want time.Duration
	}{
		{"a failure", dns.Msg{MsgHdr: dns.MsgHdr{Rcode: dns.RcodeServerFailure}, Ns: soa(60, 60)}, 0},
		{"a refusal", dns.Msg{MsgHdr: dns.MsgHdr{Rcode: dns.RcodeRefused}}, 0},
		{"a part", dns.Msg{MsgHdr: dns.MsgHdr{Truncated: true}, Answer: reply(t, "a.test.", "a.test. 60 A 192.0.2.1").Answer}, 0},
		{"nothing without a zone", dns.Msg{}, 0},
		{"no such name", dns.Msg{MsgHdr: dns.MsgHdr{Rcode: dns.RcodeNameError}, Ns: soa(600, 30)}, 30 * time.Second},
		{"no such name for long", dns.Msg{MsgHdr: dns.MsgHdr{Rcode: dns.RcodeNameError}, Ns: soa(86400, 86400)}, cacheNegative},
		{"no data", dns.Msg{Ns: soa(20, 30)}, 20 * time.Second},
		{"a time of nothing", dns.Msg{Answer: reply(t, "a.test.", "a.test. 0 A 192.0.2.1").Answer}, 0},
		{"the shortest of two", dns.Msg{Answer: reply(t, "a.test.", "a.test. 60 A 192.0.2.1", "a.test. 30 A 192.0.2.2").Answer}, 30 * time.Second},
		{"for ever", dns.Msg{Answer: reply(t, "a.test.", "a.test. 2147483647 A 192.0.2.1").Answer}, cacheLongest},
	} {
		if got := lifetime(&tt.msg); got != tt.want {
			t.Errorf("%s is kept for %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestCacheTellsWhatIsLeft(t *testing.T) {
	t.Parallel()
	c, q := newDNSCache(), new(dns.Msg).SetQuestion("A.Test.", dns.TypeA)
	c.put(q, reply(t, "a.test.", "a.test. 60 A 192.0.2.1", "a.test. 90000 A 192.0.2.2"), cacheTime())
	for _, tt := range []struct {
		after        time.Duration
		short, other uint32
	}{{0, 60, 3600}, {20 * time.Second, 40, 3580}, {59900 * time.Millisecond, 1, 3541}, {time.Minute, 0, 0}} {
		a := c.get(q, cacheTime().Add(tt.after))
		if tt.short == 0 {
			if a != nil || c.len() != 0 || c.bytes != 0 {
				t.Errorf("after %s: %v, %d entries of %d bytes; want none", tt.after, a, c.len(), c.bytes)
			}
			continue
		}
		if a == nil || a.Answer[0].Header().Ttl != tt.short || a.Answer[1].Header().Ttl != tt.other {
			t.Errorf("after %s: %v, want times of %d and %d", tt.after, a, tt.short, tt.other)
		}
	}
}

// TestCacheDistinguishes: an answer to one query is not one to another.
func TestCacheDistinguishes(t *testing.T) {
	t.Parallel()
	c := newDNSCache()
	query := func(change func(*dns.Msg)) *dns.Msg {
		q := new(dns.Msg).SetQuestion("a.test.", dns.TypeA)
		change(q)
		return q
	}
	c.put(query(func(*dns.Msg) {}), reply(t, "a.test.", "a.test. 60 A 192.0.2.1"), cacheTime())
	for name, change := range map[string]func(*dns.Msg){
		"another name":  func(q *dns.Msg) { q.Question[0].Name = "b.test." },
		"another type":  func(q *dns.Msg) { q.Question[0].Qtype = dns.TypeAAAA },
		"another class": func(q *dns.Msg) { q.Question[0].Qclass = dns.ClassCHAOS },
		"no recursion":  func(q *dns.Msg) { q.RecursionDesired = false },
		"unchecked":     func(q *dns.Msg) { q.CheckingDisabled = true },
		"authenticated": func(q *dns.Msg) { q.AuthenticatedData = true },
		"EDNS":          func(q *dns.Msg) { q.SetEdns0(1232, false) },
		"signatures":    func(q *dns.Msg) { q.SetEdns0(1232, true) },
		"an option of EDNS": func(q *dns.Msg) {
			q.SetEdns0(1232, false).IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE}}
		},
	} {
		if a := c.get(query(change), cacheTime()); a != nil {
			t.Errorf("%s: answered from the cache", name)
		}
	}
	option := query(func(q *dns.Msg) {
		q.SetEdns0(1232, false).IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE}}
	})
	c.put(option, reply(t, "a.test.", "a.test. 60 A 192.0.2.1"), cacheTime())
	if c.len() != 1 {
		t.Errorf("%d answers kept, want none with options", c.len())
	}
	if a := c.get(query(func(*dns.Msg) {}), cacheTime()); a == nil {
		t.Error("the same query is not answered from the cache")
	}
}

func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	c := newDNSCache()
	put := func(i int) *dns.Msg {
		name := fmt.Sprintf("%d.test.", i)
		q := new(dns.Msg).SetQuestion(name, dns.TypeA)
		c.put(q, reply(t, name, name+" 60 A 192.0.2.1"), cacheTime())
		return q
	}
	first, second := put(0), put(1)
	for i := range cacheBytes / cacheEntry {
		c.get(first, cacheTime()) // it stays in use
		put(2 + i)
	}
	if c.bytes > cacheBytes || c.len() != c.order.Len() || c.len() < cacheBytes/cacheEntry/2 {
		t.Errorf("%d answers of %d bytes are kept", c.len(), c.bytes)
	}
	if c.get(first, cacheTime()) == nil || c.get(second, cacheTime()) != nil {
		t.Error("not the answer that was unused for longest made room")
	}
	name := "large.test."
	large := reply(t, name)
	for range cacheLargest / 16 {
		large.Answer = append(large.Answer, reply(t, name, name+" 60 A 192.0.2.1").Answer...)
	}
	q := new(dns.Msg).SetQuestion(name, dns.TypeA)
	if c.put(q, large, cacheTime()); c.get(q, cacheTime()) != nil {
		t.Error("an answer that is too large is kept")
	}
}
