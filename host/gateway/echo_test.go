package gateway_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/corridor-enclave/corridor/host/gateway"
	"github.com/corridor-enclave/corridor/host/ping"
	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/netstack/netstacktest"
)

// A fakePing is a ping socket whose other end is the test.
type fakePing struct {
	sent    chan ping.Answer // what Send was asked to send: To, Sequence, Payload, and the hops as Code
	answers chan ping.Answer
	closed  chan struct{}
	close   sync.Once
	refuse  error // of Send
}

func newFakePing() *fakePing {
	return &fakePing{sent: make(chan ping.Answer, 2*gateway.MaxEchoes), answers: make(chan ping.Answer), closed: make(chan struct{})}
}

func (f *fakePing) Send(to netip.Addr, hops int, sequence uint16, payload []byte) error {
	if f.refuse != nil {
		return f.refuse
	}
	f.sent <- ping.Answer{To: to, Sequence: sequence, Payload: bytes.Clone(payload), Code: byte(hops)}
	return nil
}

func (f *fakePing) Receive() (ping.Answer, error) {
	select {
	case a := <-f.answers:
		return a, nil
	case <-f.closed:
		return ping.Answer{}, net.ErrClosed
	}
}

func (f *fakePing) Close() error {
	f.close.Do(func() { close(f.closed) })
	return nil
}

// newEchoSite is a site with an enclave, whose ping sockets are f, or fail with err.
func newEchoSite(t *testing.T, c gateway.Config, f *fakePing, err error) (*site, *netstacktest.Enclave) {
	t.Helper()
	s, e := newSite(t, c), netstacktest.NewEnclave(t)
	s.gateway.SetPing(func(bool) (gateway.Pinger, error) {
		if err != nil {
			return nil, err
		}
		return f, nil
	})
	s.attach(16, e)
	return s, e
}

func mustPing(t *testing.T, e *netstacktest.Enclave, to string) *netstacktest.Ping {
	t.Helper()
	p, err := e.DialPing(netip.MustParseAddr(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func mustSend(t *testing.T, p *netstacktest.Ping, sequence uint16, payload string) {
	t.Helper()
	if err := p.Send(sequence, []byte(payload)); err != nil {
		t.Fatal(err)
	}
}

// awaitICMP waits until the echoes are counted as told.
func (s *site) awaitICMP(want gateway.ProtocolStats) {
	s.t.Helper()
	s.await(fmt.Sprintf("echoes are %+v", want), func() bool { return s.gateway.Enclaves()[0].Flows.ICMP == want })
}

func TestEchoWithoutPingSockets(t *testing.T) {
	t.Parallel()
	s, e := newEchoSite(t, gateway.Config{}, nil, ping.ErrNotPermitted)
	p := mustPing(t, e, "198.51.100.1")
	mustSend(t, p, 1, "hello")
	mustSend(t, p, 2, "hello")
	s.awaitICMP(gateway.ProtocolStats{Refused: 2})
	if line := s.events.await(t, "no-ping-socket"); !strings.Contains(line, "sysctl -w net.ipv4.ping_group_range") {
		t.Errorf("the log does not say the remedy: %s", line)
	}
	if n := s.gateway.Enclaves()[0].Refusals["no-ping-socket"]; n != 2 {
		t.Errorf("%d refusals counted, want 2", n)
	}
	own := mustPing(t, e, tapstack.GatewayAddr().String())
	mustSend(t, own, 1, "hello")
	if _, _, err := own.Receive(s.ctx); err != nil {
		t.Errorf("the gateway does not answer for itself: %v", err)
	}
	if _, _, err := p.Receive(expired(s.ctx)); err == nil {
		t.Error("somebody answered")
	}
}

// TestEchoesTheHostRefuses: by the same policy as other flows, and before a socket
// is asked for.
func TestEchoesTheHostRefuses(t *testing.T) {
	t.Parallel()
	deny, err := gateway.ParseDestination("198.51.100.0/24")
	if err != nil {
		t.Fatal(err)
	}
	s, e := newEchoSite(t, gateway.Config{Egress: gateway.Egress{Deny: []gateway.Destination{deny}}}, nil, errors.New("not to be opened"))
	refused := map[string]string{
		"169.254.169.254": "metadata", "169.254.1.1": "link-local", "127.0.0.1": "", "192.168.127.254": "host-loopback",
		"192.168.127.77": "link", "240.0.0.1": "unroutable", "198.51.100.1": "denied",
	}
	n := uint64(0)
	for to, cause := range refused {
		p, err := e.DialPing(netip.MustParseAddr(to))
		if err != nil || p.Send(1, nil) != nil || cause == "" {
			continue // the enclave's own stack sends it nowhere
		}
		t.Cleanup(p.Close)
		n++
		s.await(to+" is refused", func() bool { return s.gateway.Enclaves()[0].Refusals[cause] == 1 })
	}
	if n != uint64(len(refused))-1 {
		t.Errorf("%d requests arrived, want %d", n, len(refused)-1)
	}
	s.awaitICMP(gateway.ProtocolStats{Refused: n})
}

func TestEchoAnswers(t *testing.T) {
	t.Parallel()
	f := newFakePing()
	s, e := newEchoSite(t, gateway.Config{HostLoopback: true}, f, nil)
	first, second := mustPing(t, e, "198.51.100.1"), mustPing(t, e, tapstack.HostAliasAddr().String())
	mustSend(t, first, 7, "first")
	mustSend(t, second, 7, "second")
	a, b := <-f.sent, <-f.sent
	if a.Payload[0] != 'f' {
		a, b = b, a
	}
	if a.To.String() != "198.51.100.1" || b.To.String() != "127.0.0.1" || a.Sequence == b.Sequence || a.Code != 63 {
		t.Fatalf("sent %+v and %+v", a, b)
	}
	s.awaitICMP(gateway.ProtocolStats{Open: 2, Total: 2})
	// Neither what nobody asked for, nor what another one answers, is anybody's.
	f.answers <- ping.Answer{Sequence: b.Sequence + a.Sequence + 1, To: a.To, From: a.To}
	f.answers <- ping.Answer{Sequence: a.Sequence, To: b.To, From: b.To, Payload: []byte("wrong")}
	for _, x := range []ping.Answer{b, a} {
		x.From = x.To
		f.answers <- x
		f.answers <- x // a duplicate
	}
	for p, want := range map[*netstacktest.Ping]string{first: "first", second: "second"} {
		sequence, payload, err := p.Receive(s.ctx)
		if sequence != 7 || string(payload) != want || err != nil {
			t.Errorf("reply %d %q, %v; want 7 %q", sequence, payload, err, want)
		}
	}
	s.awaitICMP(gateway.ProtocolStats{Total: 2})
}

// TestEchoFailures: what cannot be sent, and what comes back as an error, is over.
func TestEchoFailures(t *testing.T) {
	t.Parallel()
	for _, cause := range []error{syscall.ENETUNREACH, syscall.EAGAIN} {
		f := newFakePing()
		f.refuse = cause
		s, e := newEchoSite(t, gateway.Config{}, f, nil)
		mustSend(t, mustPing(t, e, "198.51.100.1"), 1, "")
		s.awaitICMP(gateway.ProtocolStats{Total: 1, Failed: 1})
	}
	f := newFakePing()
	s, e := newEchoSite(t, gateway.Config{}, f, nil)
	p := mustPing(t, e, "198.51.100.1")
	for i, kind := range []ping.Answer{{Type: 11}, {Type: 3, Code: 1}, {Type: 3, Code: 4}, {Type: 5}} {
		mustSend(t, p, uint16(i), "")
		sent := <-f.sent
		kind.Failed, kind.To, kind.Sequence = true, sent.To, sent.Sequence
		f.answers <- kind
		s.awaitICMP(gateway.ProtocolStats{Total: uint64(i) + 1, Failed: uint64(i) + 1})
	}
}

func TestEchoesAreBounded(t *testing.T) {
	t.Parallel()
	f := newFakePing()
	s, e := newEchoSite(t, gateway.Config{}, f, nil)
	p := mustPing(t, e, "198.51.100.1")
	mustSend(t, p, 0, "") // the enclave's stack keeps few packets while it asks for the gateway's address
	s.awaitICMP(gateway.ProtocolStats{Open: 1, Total: 1})
	for i := range gateway.MaxEchoes + 9 {
		mustSend(t, p, uint16(i+1), "")
	}
	s.awaitICMP(gateway.ProtocolStats{Open: gateway.MaxEchoes, Total: gateway.MaxEchoes, Refused: 10})
	a := <-f.sent
	f.answers <- ping.Answer{Sequence: a.Sequence, To: a.To, From: a.To}
	if sequence, _, err := p.Receive(s.ctx); sequence != 0 || err != nil {
		t.Fatalf("reply %d, %v", sequence, err)
	}
	mustSend(t, p, 1000, "") // there is room again
	s.awaitICMP(gateway.ProtocolStats{Open: gateway.MaxEchoes, Total: gateway.MaxEchoes + 1, Refused: 10})
}
