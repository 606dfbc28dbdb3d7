package gateway_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"

	"github.com/corridor-enclave/corridor/host/gateway"
	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/netstack/netstacktest"
	"github.com/corridor-enclave/corridor/tapstack/simvsock"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// attachExtended opens an extended link that says these capabilities, and returns
// those of the host.
func (s *site) attachExtended(e *netstacktest.Enclave, says string) tapstack.Capabilities {
	s.t.Helper()
	transport, err := simvsock.Dir(s.vsock, 16)
	if err != nil {
		s.t.Fatal(err)
	}
	conn, err := transport.Dial(s.ctx, vsockconn.Addr{CID: vsockconn.CIDParent, Port: tapstack.LinkPort})
	if err != nil {
		s.t.Fatal(err)
	}
	request := "POST " + tapstack.UpgradePath + " HTTP/1.1\r\nHost: \r\nConnection: Upgrade\r\nUpgrade: tapstack/1\r\nTapstack: " + says + "\r\nContent-Length: 0\r\n\r\n"
	if _, err := io.WriteString(conn, request); err != nil {
		s.t.Fatal(err)
	}
	ahead := bufio.NewReader(conn)
	answer, err := http.ReadResponse(ahead, nil)
	if err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
		s.t.Fatalf("answer %v, %v", answer, err)
	}
	host, err := tapstack.ParseCapabilities(answer.Header.Get("Tapstack"))
	if err != nil {
		s.t.Fatal(err)
	}
	var carrying sync.WaitGroup
	carrying.Go(func() { e.CarryExtended(readAhead{conn, ahead}) })
	s.t.Cleanup(func() {
		conn.Close()
		carrying.Wait()
	})
	s.events.await(s.t, "link attached")
	return host
}

// readAhead is a conn that begins with what a reader has of it.
type readAhead struct {
	net.Conn
	r *bufio.Reader
}

func (c readAhead) Read(b []byte) (int, error) { return c.r.Read(b) }

func TestParseIPv6(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "yes", "On"} {
		if v, err := gateway.ParseIPv6(text); err == nil {
			t.Errorf("ParseIPv6(%q) = %d", text, v)
		}
	}
	for text, want := range map[string]gateway.IPv6{"auto": gateway.IPv6Auto, "on": gateway.IPv6On, "off": gateway.IPv6Off} {
		if v, err := gateway.ParseIPv6(text); err != nil || v != want {
			t.Errorf("ParseIPv6(%q) = %d, %v", text, v, err)
		}
	}
}

// TestIPv6Flows: what is the host's own is so in IPv6 too. Nothing is sent
// anywhere.
func TestIPv6Flows(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		mode  gateway.IPv6
		says  string
		reach bool
	}{
		{"off", gateway.IPv6Off, "ipv6", false},
		{"the enclave takes none", gateway.IPv6On, "max-frame=1514", false},
		{"on", gateway.IPv6On, "ipv6", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, e := newSite(t, gateway.Config{IPv6: tt.mode}), netstacktest.NewEnclave(t)
			if host := s.attachExtended(e, tt.says); host.IPv6 != (tt.mode == gateway.IPv6On) {
				t.Errorf("the host says %s", host)
			}
			ctx := s.ctx
			if !tt.reach {
				cancelled, cancel := context.WithCancel(s.ctx)
				cancel() // one SYN leaves all the same, and nothing answers it
				ctx = cancelled
			}
			for _, to := range []string{"[fd00:ec2::254]:80", "[fe80::1]:80", "[fd00::1]:80", "[::ffff:127.0.0.1]:80", "[64:ff9b::7f00:1]:80"} {
				if conn, err := e.DialTCP(ctx, netip.MustParseAddrPort(to)); err == nil {
					conn.Close()
					t.Errorf("the enclave reached %s", to)
				}
			}
			got := s.gateway.Enclaves()[0]
			if tt.reach && (got.Refusals["metadata"] != 1 || got.Refusals["private-ipv6"] != 1 || got.Flows.TCP.Refused < 3) {
				t.Errorf("refusals are %v of %d", got.Refusals, got.Flows.TCP.Refused)
			}
			if !tt.reach && got.Flows.TCP.Refused != 0 {
				t.Errorf("%d flows over IPv6 came to be judged", got.Flows.TCP.Refused)
			}
		})
	}
}

// TestClientsOfIPv6 arrive with their own address where somebody listens for it,
// and else with the gateway's.
func TestClientsOfIPv6(t *testing.T) {
	t.Parallel()
	s, e := newSite(t, gateway.Config{IPv6: gateway.IPv6On}), netstacktest.NewEnclave(t)
	s.attachExtended(e, "ipv6")
	client := netip.MustParseAddrPort("[2001:db8::99]:4242")
	accept := func(l net.Listener, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		conn, err := s.gateway.Dial(s.ctx, client, 16, uint16(l.Addr().(*net.TCPAddr).Port))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		in, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		return in.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().String()
	}
	if got := accept(e.ListenTCP6(8080)); got != "2001:db8::99" {
		t.Errorf("the client comes from %s, want its own address", got)
	}
	if got := accept(e.ListenTCP(8081)); got != tapstack.GatewayAddr().String() {
		t.Errorf("the client comes from %s, want the gateway's address", got)
	}
}
