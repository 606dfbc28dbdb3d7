package gateway

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestParseDestination(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 64)
	for text, want := range map[string]string{
		"": "no name", "10.0.0.1/8": "did you mean 10.0.0.0/8?", "10.0.0.0/33": "no network", "10.0.0.1:": "want a port",
		"10.0.0.1:0": "want a port", "10.0.0.1:65536": "want a port", "10.0.0.1:443-80": "wrong way round", "10.0.0.1:1-2-3": "want a port",
		"10.0.0.1:http": "want a port", "10.0.0": "no name", "*": "no name", "*.": "no name", "*example.com": "no name", "a.*.example.com": "no name",
		"a..example.com": "no name", ".example.com": "no name", long + ".com": "no name", strings.Repeat("a.", 128): "no name",
		"bücher.example": "no name", "exa mple.com": "no name", "https://example.com": "want a port", "example.com/": "no name",
		"fe80::1%eth0": "no name", "::ffff:10.0.0.1": "no name", "[10.0.0.1]:80": "no name", "[::1": "no name", "[::1]80": "no name", "[::1]:": "want a port",
		"2001:db8::1/32": "did you mean 2001:db8::/32?", "example.com:443:1": "no name",
	} {
		if d, err := ParseDestination(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseDestination(%q) = %v, %v; want %q", text, d, err, want)
		}
	}
	for text, want := range map[string]string{
		"10.0.0.1": "10.0.0.1/32", "10.0.0.0/8": "10.0.0.0/8", "10.0.0.1:443": "10.0.0.1/32:443", "0.0.0.0/0:80-443": "0.0.0.0/0:80-443",
		"::1": "::1/128", "2001:db8::/32": "2001:db8::/32", "[2001:db8::/32]:443": "[2001:db8::/32]:443", "[::1]:1-2": "[::1/128]:1-2", "[::1]": "::1/128",
		"example.com": "example.com", "WWW.Example.com.:443": "www.example.com:443", "*.example.com": "*.example.com", "*.example.com:80-443": "*.example.com:80-443",
		"_sip._tcp.example.com": "_sip._tcp.example.com", "db": "db",
	} {
		if d, err := ParseDestination(text); err != nil || d.String() != want {
			t.Errorf("ParseDestination(%q) = %v, %v; want %s", text, d, err, want)
		}
	}
}

func TestDestinationContainsName(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		rule, name string
		want       bool
	}{
		{"example.com", "www.example.com.", false}, {"example.com", "badexample.com.", false}, {"example.com", "example.com.evil.", false},
		{"*.example.com", "example.com.", false}, {"*.example.com", "badexample.com.", false}, {"*.example.com", ".example.com.", false},
		{"10.0.0.0/8", "10.0.0.1.", false}, {"example.com", ".", false},
		{"example.com", "example.com.", true}, {"*.example.com", "www.example.com.", true}, {"*.example.com", "a.b.example.com.", true},
	} {
		if got := rules(t, tt.rule)[0].containsName(tt.name); got != tt.want {
			t.Errorf("%s contains %s: %t", tt.rule, tt.name, got)
		}
	}
}

// rules parses destinations.
func rules(t *testing.T, texts ...string) (all []Destination) {
	t.Helper()
	for _, text := range texts {
		d, err := ParseDestination(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, d)
	}
	return all
}

func TestEgress(t *testing.T) {
	t.Parallel()
	allow := func(texts ...string) Egress { return Egress{Allow: rules(t, texts...)} }
	deny := func(texts ...string) Egress { return Egress{Deny: rules(t, texts...)} }
	for _, tt := range []struct {
		name   string
		egress Egress
		to     string
		why    string
	}{
		{"no lists", Egress{}, "203.0.113.1:443", ""},
		{"denied", deny("203.0.113.0/24"), "203.0.113.1:443", "denied by --egress-deny 203.0.113.0/24"},
		{"beside what is denied", deny("203.0.113.0/24"), "203.0.114.1:443", ""},
		{"another port is denied", deny("0.0.0.0/0:25"), "203.0.113.1:443", ""},
		{"allowed", allow("203.0.113.1:443"), "203.0.113.1:443", ""},
		{"another port is allowed", allow("203.0.113.1:443"), "203.0.113.1:80", "not among what --egress-allow names"},
		{"the last port of a range", allow("203.0.113.1:80-443"), "203.0.113.1:443", ""},
		{"behind the range", allow("203.0.113.1:80-443"), "203.0.113.1:444", "not among"},
		{"allowed and denied", Egress{Allow: rules(t, "0.0.0.0/0"), Deny: rules(t, "203.0.113.1")}, "203.0.113.1:443", "denied"},
		{"a name is no address", allow("example.com"), "203.0.113.1:443", "not among"},
		{"metadata within all", allow("0.0.0.0/0"), "169.254.169.254:80", "metadata"},
		{"metadata within link-local", allow("169.254.0.0/16"), "169.254.169.254:80", "metadata"},
		{"metadata by its own address", allow("169.254.169.254:80"), "169.254.169.254:80", ""},
		{"another port of metadata", allow("169.254.169.254:80", "0.0.0.0/0"), "169.254.169.254:81", "metadata"},
		{"metadata allowed and denied", Egress{Allow: rules(t, "169.254.169.254"), Deny: rules(t, "0.0.0.0/0:80")}, "169.254.169.254:80", "denied"},
		{"time by its own address", allow("169.254.169.123:123"), "169.254.169.123:123", ""},
		{"loopback by its own address", allow("127.0.0.1", "127.0.0.0/8"), "127.0.0.1:80", "loopback"},
		{"the host's alias beside what is allowed", allow("203.0.113.1"), "192.168.127.254:80", "not among"},
		{"the host's alias, allowed", allow("192.168.127.254:80"), "192.168.127.254:80", ""},
		{"the host's alias, denied", deny("192.168.127.254:80"), "192.168.127.254:80", "denied"},
		{"metadata over IPv6 within private", allow("fc00::/7"), "[fd00:ec2::254]:80", "metadata"},
		{"private IPv6 within all", allow("::/0"), "[fd00::1]:80", "private"},
		{"private IPv6 by its network", allow("fd00::/16"), "[fd00::1]:80", ""},
		{"mapped", allow("::/0"), "[::ffff:203.0.113.1]:80", "not an address"},
		{"metadata behind NAT64", allow("64:ff9b::/96", "169.254.169.254"), "[64:ff9b::a9fe:a9fe]:80", "metadata"},
		{"denied behind NAT64", Egress{Deny: rules(t, "203.0.113.0/24")}, "[64:ff9b::cb00:7101]:80", "denied"},
		{"behind NAT64", Egress{}, "[64:ff9b::cb00:7101]:80", ""},
		{"a NAT64 of the site", allow("::/0"), "[64:ff9b:1::1]:80", "not an address"},
		{"6to4", Egress{}, "[2002:7f00:1::1]:80", "not an address"},
		{"Teredo", Egress{}, "[2001::1]:80", "not an address"},
		{"IPv6 loopback", allow("::1"), "[::1]:80", "loopback"},
		{"IPv6 unspecified", allow("::/0"), "[::]:80", "not an address"},
		{"IPv6 link-local", allow("fe80::/10"), "[fe80::1]:80", "link-local"},
		{"IPv6 multicast", Egress{}, "[ff02::1]:80", "multicast"},
		{"the link over IPv6", allow("fd3c:91d2:7ab4::1"), "[fd3c:91d2:7ab4::1]:80", "the link itself"},
		{"IPv6", Egress{}, "[2001:db8::1]:80", ""},
		{"IPv6 denied", deny("[2001:db8::/32]:80"), "[2001:db8::1]:80", "denied"},
	} {
		p := policy{egress: tt.egress, ipv6: true, hostLoopback: true, answers: newAnswers(tt.egress)}
		_, no := p.route(netip.MustParseAddrPort(tt.to))
		if (no.cause == causeNone) != (tt.why == "") || !strings.Contains(no.why, tt.why) {
			t.Errorf("%s: refused because %q, want %q", tt.name, no.why, tt.why)
		}
	}
}

func TestJudgeNames(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		egress Egress
		chain  []string
		want   cause
	}{
		{"denied", Egress{Deny: rules(t, "*.evil.test")}, []string{"a.evil.test."}, causeNameDenied},
		{"an alias of what is denied", Egress{Deny: rules(t, "*.evil.test")}, []string{"good.test.", "a.evil.test."}, causeNameDenied},
		{"denied and allowed", Egress{Allow: rules(t, "a.evil.test"), Deny: rules(t, "*.evil.test")}, []string{"a.evil.test."}, causeNameDenied},
		{"only some ports are denied", Egress{Deny: rules(t, "*.evil.test:25")}, []string{"a.evil.test."}, causeNone},
		{"not allowed", Egress{Allow: rules(t, "good.test")}, []string{"data-to-smuggle.evil.test."}, causeNameNotAllowed},
		{"an alias of what is allowed", Egress{Allow: rules(t, "good.test")}, []string{"evil.test.", "good.test."}, causeNameNotAllowed},
		{"allowed", Egress{Allow: rules(t, "good.test:443")}, []string{"good.test.", "edge.cdn.test."}, causeNone},
		{"addresses are allowed too", Egress{Allow: rules(t, "good.test", "10.0.0.0/8")}, []string{"other.test."}, causeNone},
		{"no rules", Egress{}, []string{"other.test."}, causeNone},
	} {
		if got := tt.egress.judgeNames(tt.chain); got.cause != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got.cause, tt.want)
		}
	}
}

// reply parses records in the form of zone files as an answer to a question.
func reply(t testing.TB, name string, records ...string) *dns.Msg {
	t.Helper()
	m := new(dns.Msg).SetQuestion(name, dns.TypeA)
	for _, text := range records {
		r, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		m.Answer = append(m.Answer, r)
	}
	return m
}

// TestAnswersOpenAddresses: what an enclave may reach by names is what its own
// queries were answered with, and nothing that a name's owner may not give away.
func TestAnswersOpenAddresses(t *testing.T) {
	t.Parallel()
	e := Egress{Allow: rules(t, "app.test:443", "*.wild.test", "both.test", "10.0.0.0/8:22"), Deny: rules(t, "mail.test:25", "203.0.113.66")}
	type try struct {
		to   string
		want cause
	}
	for _, tt := range []struct {
		name   string
		answer *dns.Msg
		tries  []try
	}{
		{"not asked", reply(t, "other.test.", "other.test. 60 A 198.51.100.7"), []try{{"198.51.100.7:443", causeNotAllowed}}},
		{"allowed, with its port", reply(t, "APP.test.", "app.test. 60 A 198.51.100.7"), []try{
			{"198.51.100.7:443", causeNone}, {"198.51.100.7:80", causeNotAllowed}, {"198.51.100.8:443", causeNotAllowed}}},
		{"IPv6", reply(t, "app.test.", "app.test. 60 AAAA 2001:db8::7"), []try{{"[2001:db8::7]:443", causeNone}, {"[2001:db8::8]:443", causeNotAllowed}}},
		{"behind aliases, in any order", reply(t, "x.wild.test.", "c.test. 60 A 198.51.100.9", "b.test. 60 CNAME c.test.", "x.wild.test. 60 CNAME b.test."), []try{
			{"198.51.100.9:1", causeNone}}},
		{"an alias of what is allowed", reply(t, "evil.test.", "evil.test. 60 CNAME app.test.", "app.test. 60 A 198.51.100.7"), []try{{"198.51.100.7:443", causeNotAllowed}}},
		{"records beside the chain", reply(t, "app.test.", "app.test. 60 CNAME b.test.", "b.test. 60 A 198.51.100.7", "app.test. 60 A 198.51.100.8", "c.test. 60 A 198.51.100.9"), []try{
			{"198.51.100.7:443", causeNone}, {"198.51.100.8:443", causeNotAllowed}, {"198.51.100.9:443", causeNotAllowed}}},
		{"a loop", reply(t, "app.test.", "app.test. 60 CNAME b.test.", "b.test. 60 CNAME app.test."), []try{{"198.51.100.7:443", causeNotAllowed}}},
		{"the host's own", reply(t, "x.wild.test.", "x.wild.test. 60 A 169.254.169.254", "x.wild.test. 60 A 127.0.0.1", "x.wild.test. 60 A 192.168.127.254",
			"x.wild.test. 60 AAAA ::ffff:127.0.0.1", "x.wild.test. 60 AAAA fd00:ec2::254", "x.wild.test. 60 AAAA 64:ff9b::7f00:1", "x.wild.test. 60 A 0.0.0.0"), []try{
			{"169.254.169.254:80", causeMetadata}, {"127.0.0.1:80", causeLoopback}, {"192.168.127.254:80", causeNotAllowed}, {"[::ffff:127.0.0.1]:80", causeUnroutable},
			{"[fd00:ec2::254]:80", causeMetadata}, {"[64:ff9b::7f00:1]:80", causeLoopback}, {"0.0.0.0:80", causeUnroutable}}},
		{"denied by address", reply(t, "app.test.", "app.test. 60 A 203.0.113.66"), []try{{"203.0.113.66:443", causeDenied}}},
		{"denied by the name of an alias", reply(t, "x.wild.test.", "x.wild.test. 60 CNAME mail.test.", "mail.test. 60 A 198.51.100.25"), []try{
			{"198.51.100.25:25", causeDenied}, {"198.51.100.25:443", causeNone}}},
		{"a private address", reply(t, "app.test.", "app.test. 60 A 10.1.2.3"), []try{{"10.1.2.3:443", causeNone}, {"10.1.2.3:22", causeNone}, {"10.1.2.3:23", causeNotAllowed}}},
	} {
		p := policy{egress: e, ipv6: true, hostLoopback: true, answers: newAnswers(e)}
		p.answers.learn(tt.answer, time.Now())
		for _, try := range tt.tries {
			if _, no := p.route(netip.MustParseAddrPort(try.to)); no.cause != try.want {
				t.Errorf("%s: to %s: %s (%s), want %s", tt.name, try.to, no.cause, no.why, try.want)
			}
		}
	}
}

func TestAnswersEnd(t *testing.T) {
	t.Parallel()
	rule := rules(t, "app.test")[0]
	a := newAnswers(Egress{Allow: []Destination{rule}})
	start := time.Unix(1000, 0)
	short, long := netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("198.51.100.2")
	a.learn(reply(t, "app.test.", "app.test. 1 A 198.51.100.1", "app.test. 3600 A 198.51.100.2"), start)
	a.learn(reply(t, "app.test.", "app.test. 60 A 198.51.100.2"), start) // a shorter time takes nothing back
	for _, tt := range []struct {
		after       time.Duration
		short, long bool
	}{
		{0, true, true}, {minHeld, true, true}, {minHeld + heldBeyond, false, true}, {time.Hour, false, true}, {time.Hour + heldBeyond, false, false},
	} {
		now := start.Add(tt.after)
		if s, l := a.holds(short, rule, now), a.holds(long, rule, now); s != tt.short || l != tt.long {
			t.Errorf("after %s: %t and %t, want %t and %t", tt.after, s, l, tt.short, tt.long)
		}
	}
}

// TestAnswersAreBounded: an enclave that asks for ever new names of a zone that
// is allowed pushes out what ends first, and fills no memory.
func TestAnswersAreBounded(t *testing.T) {
	t.Parallel()
	rule := rules(t, "*.wild.test")[0]
	a := newAnswers(Egress{Allow: []Destination{rule}})
	now := time.Unix(1000, 0)
	long := netip.MustParseAddr("203.0.113.1")
	a.learn(reply(t, "x.wild.test.", "x.wild.test. 3600 A 203.0.113.1"), now)
	for i := range maxAnswered + 100 {
		m := reply(t, "y.wild.test.")
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: "y.wild.test.", Rrtype: dns.TypeA}, A: []byte{10, 0, byte(i >> 8), byte(i)}}}
		a.learn(m, now)
	}
	if held, evicted := a.size(); held != maxAnswered || evicted != 101 {
		t.Errorf("%d addresses held, %d evicted; want %d and 101", held, evicted, maxAnswered)
	}
	if !a.holds(long, rule, now) {
		t.Error("the address that lasts longest was evicted")
	}
	later := now.Add(30 * time.Minute)
	a.learn(reply(t, "z.wild.test.", "z.wild.test. 60 A 203.0.113.2"), later)
	if held, evicted := a.size(); held != 2 || evicted != 101 {
		t.Errorf("after the others ended: %d held, %d evicted; want 2 and 101", held, evicted)
	}
}

func TestOneAnswerTellsFewAddresses(t *testing.T) {
	t.Parallel()
	a := newAnswers(Egress{Allow: rules(t, "app.test")})
	m := reply(t, "app.test.")
	for i := range byte(200) {
		m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: "app.test.", Rrtype: dns.TypeA}, A: []byte{10, 0, 0, i}})
	}
	a.learn(m, time.Unix(1000, 0))
	if held, _ := a.size(); held != maxTold {
		t.Errorf("%d addresses of one answer are held, want %d", held, maxTold)
	}
}

// FuzzAnswers: whatever a resolver answers, only addresses that it told are held,
// and the host's own stay closed.
func FuzzAnswers(f *testing.F) {
	e := Egress{Allow: []Destination{{name: ".wild.test.", first: 1, end: 65535}}}
	m := reply(f, "x.wild.test.", "x.wild.test. 60 CNAME b.test.", "b.test. 60 A 198.51.100.7", "b.test. 60 A 127.0.0.1")
	seed, err := m.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		m := new(dns.Msg)
		if m.Unpack(b) != nil || len(m.Question) != 1 {
			return
		}
		p := policy{egress: e, ipv6: true, hostLoopback: true, answers: newAnswers(e)}
		p.answers.learn(m, time.Now())
		for addr := range p.answers.held {
			to, no := p.route(netip.AddrPortFrom(addr, 80))
			if a := to.Addr(); no.cause == causeNone && (a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsPrivate() && a.Is6() || a.IsUnspecified() || a.Is4In6()) {
				t.Fatalf("a name opens %s", a)
			}
		}
	})
}

// FuzzParseDestination: what is accepted is read the same as it is written.
func FuzzParseDestination(f *testing.F) {
	f.Add("10.0.0.0/8:80-443")
	f.Add("1.2.3.4")
	f.Add("*.example.com:443")
	f.Add("[2001:db8::/32]:1-2")
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
