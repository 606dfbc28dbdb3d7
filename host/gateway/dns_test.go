package gateway_test

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/corridor-enclave/corridor/host/gateway"
	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/netstack/netstacktest"
)

// upstream is a resolver of the host. It keeps the identifiers of its queries.
type upstream struct {
	at netip.AddrPort

	mu  sync.Mutex
	ids []uint16
	tcp int
}

func newUpstream(t *testing.T) *upstream {
	t.Helper()
	pc, l := listenBoth(t)
	u := &upstream{at: pc.LocalAddr().(*net.UDPAddr).AddrPort()}
	var running, started sync.WaitGroup
	t.Cleanup(running.Wait) // after both are shut down
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: u}, {Listener: l, Handler: u}} {
		started.Add(1)
		s.NotifyStartedFunc = started.Done
		running.Go(func() { s.ActivateAndServe() })
		t.Cleanup(func() { s.Shutdown() })
	}
	started.Wait()
	return u
}

// listenBoth opens the same port for UDP and TCP. A port that is free for one may
// be taken for the other.
func listenBoth(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		pc, err := net.ListenPacket("udp", l.Addr().String())
		if err == nil {
			return pc, l
		}
		l.Close()
	}
	t.Fatal("no port is free for both UDP and TCP")
	return nil, nil
}

// ServeDNS answers by the first label of the name.
func (u *upstream) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	overTCP := w.RemoteAddr().Network() == "tcp"
	u.mu.Lock()
	u.ids = append(u.ids, q.Id)
	if overTCP {
		u.tcp++
	}
	u.mu.Unlock()
	a := new(dns.Msg).SetReply(q)
	header := dns.RR_Header{Name: q.Question[0].Name, Rrtype: q.Question[0].Qtype, Class: dns.ClassINET, Ttl: 321}
	switch label, _, _ := strings.Cut(q.Question[0].Name, "."); label {
	case "nobody":
		a.Rcode = dns.RcodeNameError
	case "large":
		for i := range 40 {
			a.Answer = append(a.Answer, &dns.TXT{Hdr: header, Txt: []string{fmt.Sprintf("%060d", i)}})
		}
		if !overTCP {
			a.Truncate(dns.MinMsgSize)
		}
	case "alias":
		a.Answer = []dns.RR{
			&dns.CNAME{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: 321}, Target: "host.denied."},
			&dns.A{Hdr: dns.RR_Header{Name: "host.denied.", Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 321}, A: net.IPv4(198, 51, 100, 8)},
		}
	case "home":
		a.Answer = []dns.RR{&dns.A{Hdr: header, A: tapstack.HostAliasAddr().AsSlice()}}
	case "other":
		a.Question[0].Name = "another.example."
	default:
		if q.Question[0].Qtype == dns.TypeAAAA {
			a.Answer = []dns.RR{&dns.AAAA{Hdr: header, AAAA: net.ParseIP("2001:db8::7")}}
			break
		}
		if q.Question[0].Qtype == dns.TypeA {
			a.Answer = []dns.RR{&dns.A{Hdr: header, A: net.IPv4(198, 51, 100, 7)}}
			break
		}
		// A type that nobody here knows.
		a.Answer = []dns.RR{&dns.RFC3597{Hdr: header, Rdata: "c0ffee"}}
	}
	w.WriteMsg(a)
}

func ask(t *testing.T, s *site, e *netstacktest.Enclave, q *dns.Msg, overTCP bool) *dns.Msg {
	t.Helper()
	at := netip.AddrPortFrom(tapstack.GatewayAddr(), 53)
	var conn net.Conn
	var err error
	if overTCP {
		conn, err = e.DialTCP(s.ctx, at)
	} else {
		conn, err = e.DialUDP(at)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	c := &dns.Conn{Conn: conn, UDPSize: dns.MaxMsgSize}
	if !overTCP {
		c.Conn = packetConn{conn}
	}
	if err := c.WriteMsg(q); err != nil {
		t.Fatal(err)
	}
	a, err := c.ReadMsg()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// packetConn says that its messages have no length in front.
type packetConn struct{ net.Conn }

func (c packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, err := c.Read(b)
	return n, c.RemoteAddr(), err
}

func (c packetConn) WriteTo(b []byte, _ net.Addr) (int, error) { return c.Write(b) }

func TestDNS(t *testing.T) {
	t.Parallel()
	u := newUpstream(t)
	s, e := newSite(t, gateway.Config{DNS: []netip.AddrPort{u.at}}), netstacktest.NewEnclave(t)
	s.attach(16, e)
	for _, tt := range []struct {
		name, qname string
		qtype       uint16
		edns        uint16
		code        int
		answers     int
		truncated   bool
		text        string // part of the first answer
	}{
		{name: "a name that does not exist", qname: "nobody.example.", qtype: dns.TypeA, code: dns.RcodeNameError},
		{name: "a transfer", qname: "example.", qtype: dns.TypeAXFR, code: dns.RcodeRefused},
		{name: "an answer to another question", qname: "other.example.", qtype: dns.TypeA, code: dns.RcodeServerFailure},
		{name: "a name of ours that does not exist", qname: "nobody.containers.internal.", qtype: dns.TypeA, code: dns.RcodeNameError},
		{name: "a name of ours without data", qname: "host.docker.internal.", qtype: dns.TypeAAAA},
		{name: "the host", qname: "host.containers.internal.", qtype: dns.TypeA, answers: 1, text: "192.168.127.254"},
		{name: "the gateway, in capitals", qname: "GateWay.Docker.Internal.", qtype: dns.TypeA, answers: 1, text: "192.168.127.1"},
		{name: "an address, with its time to live", qname: "www.example.", qtype: dns.TypeA, answers: 1, text: "321\tIN\tA\t198.51.100.7"},
		{name: "an IPv6 address", qname: "www.example.", qtype: dns.TypeAAAA, answers: 1, text: "2001:db8::7"},
		{name: "an unknown type", qname: "www.example.", qtype: 65280, answers: 1, text: "c0ffee"},
		{name: "more than fits", qname: "large.example.", qtype: dns.TypeTXT, truncated: true, answers: -1},
		{name: "more than fits without EDNS", qname: "large.example.", qtype: dns.TypeTXT, edns: 4096, answers: 40, text: "0000"},
	} {
		q := new(dns.Msg).SetQuestion(tt.qname, tt.qtype)
		if tt.edns > 0 {
			q.SetEdns0(tt.edns, false)
		}
		for _, overTCP := range []bool{false, true} {
			want := tt
			if overTCP && tt.truncated {
				want.truncated, want.answers = false, 40
			}
			a := ask(t, s, e, q, overTCP)
			if a.Id != q.Id || !a.Response || a.Rcode != want.code || a.Truncated != want.truncated || (want.answers >= 0 && len(a.Answer) != want.answers) {
				t.Errorf("%s (TCP %t): %v", tt.name, overTCP, a)
				continue
			}
			if tt.text != "" && !strings.Contains(a.Answer[0].String(), tt.text) {
				t.Errorf("%s (TCP %t): %s, want %s", tt.name, overTCP, a.Answer[0], tt.text)
			}
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.tcp == 0 {
		t.Error("the resolver was never asked over TCP")
	}
	same := 0
	for _, id := range u.ids[1:] {
		if id == u.ids[0] {
			same++
		}
	}
	if same > len(u.ids)/2 {
		t.Errorf("identifiers of the queries: %v, want ones that cannot be guessed", u.ids)
	}
}

// TestNamesThatAreRefused: names that no flow may use are not looked up, and a
// name that is allowed opens nothing of the host's own.
func TestNamesThatAreRefused(t *testing.T) {
	t.Parallel()
	u := newUpstream(t)
	egress := gateway.Egress{Allow: destinations(t, "*.good.example", "bad.good.example"), Deny: destinations(t, "bad.good.example", "*.denied")}
	s, e := newSite(t, gateway.Config{DNS: []netip.AddrPort{u.at}, Egress: egress, HostLoopback: true}), netstacktest.NewEnclave(t)
	s.attach(16, e)
	for _, tt := range []struct {
		qname   string
		code    int
		queries int // that the resolver has seen
	}{
		{"secret.evil.example.", dns.RcodeRefused, 0},
		{"bad.GOOD.example.", dns.RcodeRefused, 0},
		{"alias.good.example.", dns.RcodeRefused, 1},
		{"www.good.example.", dns.RcodeSuccess, 2},
		{"www.good.example.", dns.RcodeSuccess, 2}, // from the cache
		{"home.good.example.", dns.RcodeSuccess, 3},
	} {
		a := ask(t, s, e, new(dns.Msg).SetQuestion(tt.qname, dns.TypeA), false)
		u.mu.Lock()
		queries := len(u.ids)
		u.mu.Unlock()
		if a.Rcode != tt.code || queries != tt.queries || a.Question[0].Name != tt.qname {
			t.Errorf("%s: %s after %d queries, want %s after %d", tt.qname, dns.RcodeToString[a.Rcode], queries, dns.RcodeToString[tt.code], tt.queries)
		}
	}
	if conn, err := e.DialTCP(s.ctx, alias(echoServer(t))); err == nil {
		conn.Close()
		t.Error("a name opened the host's loopback")
	}
	got := s.gateway.Enclaves()[0]
	for cause, want := range map[string]uint64{"name-not-allowed": 1, "name-denied": 2, "not-allowed": 1, "denied": 0} {
		if got.Refusals[cause] != want {
			t.Errorf("%s: %d refusals, want %d (%v)", cause, got.Refusals[cause], want, got.Refusals)
		}
	}
	if d := got.DNS; d.Queries != 6 || d.Cached != 1 || d.Forwarded.Count() != 3 || d.Held != 2 || d.Kept != 3 {
		t.Errorf("stats of DNS: %+v", d)
	}
	s.events.await(t, "cause=name-denied")
}

func destinations(t *testing.T, texts ...string) (all []gateway.Destination) {
	t.Helper()
	for _, text := range texts {
		d, err := gateway.ParseDestination(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, d)
	}
	return all
}

func TestDNSWithoutResolver(t *testing.T) {
	t.Parallel()
	gone := newClosedPort(t)
	alive := newUpstream(t)
	for name, tt := range map[string]struct {
		config gateway.Config
		code   int
	}{
		"none that answers": {gateway.Config{DNS: []netip.AddrPort{gone}}, dns.RcodeServerFailure},
		"the second one":    {gateway.Config{DNS: []netip.AddrPort{gone, alive.at}}, dns.RcodeSuccess},
		"no file":           {gateway.Config{ResolvConf: filepath.Join(t.TempDir(), "none")}, dns.RcodeServerFailure},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, e := newSite(t, tt.config), netstacktest.NewEnclave(t)
			s.attach(16, e)
			if a := ask(t, s, e, new(dns.Msg).SetQuestion("www.example.", dns.TypeA), false); a.Rcode != tt.code {
				t.Errorf("code %s, want %s", dns.RcodeToString[a.Rcode], dns.RcodeToString[tt.code])
			}
		})
	}
}

// newClosedPort is a port that refuses.
func newClosedPort(t *testing.T) netip.AddrPort {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	return pc.LocalAddr().(*net.UDPAddr).AddrPort()
}

func TestEnclaveGetsItsAddressByDHCP(t *testing.T) {
	t.Parallel()
	s, e := newSite(t, gateway.Config{}), netstacktest.NewEnclave(t)
	s.attach(16, e)
	discover := make([]byte, 240, 300)
	copy(discover, []byte{1, 1, 6, 0, 1, 2, 3, 4})
	copy(discover[28:], tapstack.EnclaveMAC())
	copy(discover[236:], []byte{0x63, 0x82, 0x53, 0x63})
	discover = append(discover, 53, 1, 1, 255)
	conn, err := e.ListenDHCP()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.WriteTo(discover, &net.UDPAddr{IP: net.IPv4bcast, Port: 67}); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1500)
	n, _, err := conn.ReadFrom(buf)
	if err != nil || n < 240 || buf[0] != 2 || netip.AddrFrom4([4]byte(buf[16:20])) != tapstack.EnclaveAddr() {
		t.Fatalf("offer % x, %v", buf[:n], err)
	}
	want := map[string]string{"192.168.127.1": "5a:94:ef:e4:0c:dd", "192.168.127.2": tapstack.EnclaveMAC().String()}
	got := s.gateway.Enclaves()[0].Leases
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("leases %v, want %v", got, want)
	}
	if refused := s.gateway.Enclaves()[0].Flows.UDP; refused.Refused != 0 {
		t.Errorf("%+v: a broadcast of the host's own came back as a flow", refused)
	}
}
