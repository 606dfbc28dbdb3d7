package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/corridor-enclave/corridor/host/gateway"
	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/netstack"
	"github.com/corridor-enclave/corridor/tapstack/netstack/netstacktest"
	"github.com/corridor-enclave/corridor/tapstack/simvsock"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what must happen; nothing waits for it to pass.
const patience = 60 * time.Second

// A site is a running Gateway on a simulated VSOCK.
type site struct {
	t       *testing.T
	ctx     context.Context
	gateway *gateway.Gateway
	vsock   string // folder
	events  *events
	line    line // of runKernelLink
	stop    func()
}

func newSite(t *testing.T, c gateway.Config) *site {
	t.Helper()
	return newPatientSite(t, c, patience)
}

func newPatientSite(t *testing.T, c gateway.Config, patience time.Duration) *site {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	s := &site{t: t, ctx: ctx, vsock: t.TempDir(), events: &events{lines: make(chan string, 256)}}
	c.Log = slog.New(slog.NewTextHandler(s.events, nil))
	s.gateway = gateway.New(c)
	transport, err := simvsock.Dir(s.vsock, vsockconn.CIDParent)
	if err != nil {
		t.Fatal(err)
	}
	l, err := transport.Listen(tapstack.LinkPort)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	runCtx, stop := context.WithCancel(ctx)
	running.Go(func() {
		if err := s.gateway.Run(runCtx, l); err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	s.stop = func() {
		stop()
		running.Wait()
	}
	t.Cleanup(func() {
		s.stop()
		cancel()
	})
	return s
}

// attach opens a link as the stock client does, and returns the means to cut it.
func (s *site) attach(cid vsockconn.CID, e *netstacktest.Enclave) (cut func()) {
	s.t.Helper()
	transport, err := simvsock.Dir(s.vsock, cid)
	if err != nil {
		s.t.Fatal(err)
	}
	conn, err := transport.Dial(s.ctx, vsockconn.Addr{CID: vsockconn.CIDParent, Port: tapstack.LinkPort})
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "POST /connect HTTP/1.1\r\nHost: \r\nContent-Length: 0\r\n\r\n"); err != nil {
		s.t.Fatal(err)
	}
	var carrying sync.WaitGroup
	carrying.Go(func() { e.Carry(conn) })
	cut = sync.OnceFunc(func() {
		conn.Close()
		carrying.Wait()
	})
	s.t.Cleanup(cut)
	s.events.await(s.t, "link attached")
	return cut
}

// events are the lines of the log.
type events struct{ lines chan string }

func (e *events) Write(line []byte) (int, error) {
	select {
	case e.lines <- string(bytes.TrimSpace(line)):
	default: // no test waits for that many
	}
	return len(line), nil
}

func (e *events) await(t *testing.T, text string) string {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case line := <-e.lines:
			if strings.Contains(line, text) {
				return line
			}
		case <-timeout:
			t.Fatalf("no %q in the log", text)
		}
	}
}

// echoServer is a server of the host's loopback.
func echoServer(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	// A flow of an enclave that was cut off would go on until the grace time ends.
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			context.AfterFunc(ctx, func() { conn.Close() })
			serving.Go(func() {
				defer conn.Close()
				io.Copy(conn, conn)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		cancel()
		serving.Wait()
	})
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// alias is a port of the host's loopback as the enclave names it.
func alias(at netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(tapstack.HostAliasAddr(), at.Port())
}

func mustDial(t *testing.T, s *site, e *netstacktest.Enclave, to netip.AddrPort) net.Conn {
	t.Helper()
	conn, err := e.DialTCP(s.ctx, to)
	if err != nil {
		t.Fatalf("dial %s from the enclave: %v", to, err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// exchange sends text and expects it back.
func exchange(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != text {
		t.Fatalf("echo of %q = %q, %v", text, got, err)
	}
}

func TestTCPReachesTheHost(t *testing.T) {
	t.Parallel()
	s, e := newSite(t, gateway.Config{HostLoopback: true}), netstacktest.NewEnclave(t)
	s.attach(16, e)
	conn := mustDial(t, s, e, alias(echoServer(t)))
	exchange(t, conn, "hello")
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(conn); err != nil || len(rest) != 0 {
		t.Errorf("after half-close: %q, %v; want end of stream", rest, err)
	}
	got := s.gateway.Enclaves()
	if len(got) != 1 || got[0].CID != 16 || !got[0].Attached || got[0].Flows.TCP.Total != 1 {
		t.Errorf("Enclaves = %+v, want CID 16 with one flow", got)
	}
}

func TestFlowsThatAreRefused(t *testing.T) {
	t.Parallel()
	s, e := newSite(t, gateway.Config{}), netstacktest.NewEnclave(t)
	s.attach(16, e)
	refused := []string{"169.254.169.254:80", "192.168.127.254:80", "192.168.127.1:22", "192.168.127.77:1", "240.0.0.1:80"}
	for _, to := range refused {
		if conn, err := e.DialTCP(s.ctx, netip.MustParseAddrPort(to)); err == nil {
			conn.Close()
			t.Errorf("the enclave reached %s", to)
		}
	}
	if s.ctx.Err() != nil {
		t.Error("a refusal took for ever: it must be a reset")
	}
	if err := e.SendUnreachable(s.ctx, netip.MustParseAddrPort("169.254.169.254:53")); err == nil || s.ctx.Err() != nil {
		t.Errorf("UDP to the metadata service = %v, want port unreachable", err)
	}
	line := s.events.await(t, "refused")
	if !strings.Contains(line, "169.254.169.254:80") || !strings.Contains(line, "metadata") {
		t.Errorf("the log says %s", line)
	}
	flows := s.gateway.Enclaves()[0].Flows
	if flows.TCP.Refused != uint64(len(refused)) || flows.UDP.Refused != 1 || flows.TCP.Total != 0 {
		t.Errorf("flows = %+v, want all refused", flows)
	}
	// One line for each cause, and none for another refusal of the same.
	for _, cause := range []string{"host-loopback", "link", "unroutable"} {
		if line := s.events.await(t, "refused"); !strings.Contains(line, "cause="+cause) {
			t.Errorf("the log says %s, want cause=%s", line, cause)
		}
	}
	select {
	case line := <-s.events.lines:
		t.Errorf("more than one line about a cause: %s", line)
	default:
	}
}

func TestUnreachableDestinationIsAReset(t *testing.T) {
	t.Parallel()
	s, e := newSite(t, gateway.Config{HostLoopback: true}), netstacktest.NewEnclave(t)
	s.attach(16, e)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().(*net.TCPAddr).AddrPort()
	l.Close()
	if conn, err := e.DialTCP(s.ctx, alias(at)); err == nil {
		conn.Close()
		t.Error("the enclave reached a closed port")
	}
	if got := s.gateway.Enclaves()[0].Flows.TCP.Failed; got != 1 {
		t.Errorf("%d flows failed, want 1", got)
	}
}

func TestUDPReachesTheHost(t *testing.T) {
	t.Parallel()
	s, e := newSite(t, gateway.Config{HostLoopback: true}), netstacktest.NewEnclave(t)
	s.attach(16, e)
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	inside, err := e.DialUDP(alias(pc.LocalAddr().(*net.UDPAddr).AddrPort()))
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	buf := make([]byte, 1<<16)
	for _, text := range []string{"one", "", strings.Repeat("x", 9000)} { // the last is fragmented
		if _, err := io.WriteString(inside, text); err != nil {
			t.Fatal(err)
		}
		n, from, err := pc.ReadFrom(buf)
		if err != nil || string(buf[:n]) != text {
			t.Fatalf("the host got %d bytes, %v; want %d", n, err, len(text))
		}
		if _, err := pc.WriteTo(buf[:n], from); err != nil {
			t.Fatal(err)
		}
		if n, err = inside.Read(buf); err != nil || string(buf[:n]) != text {
			t.Fatalf("the enclave got %d bytes, %v; want %d", n, err, len(text))
		}
	}
	if got := s.gateway.Enclaves()[0].Flows.UDP; got.Open != 1 || got.Total != 1 {
		t.Errorf("flows = %+v, want one for all datagrams of a pair", got)
	}
}

func TestFlowSurvivesReconnection(t *testing.T) {
	t.Parallel()
	s, e := newSite(t, gateway.Config{HostLoopback: true}), netstacktest.NewEnclave(t)
	cut := s.attach(16, e)
	conn := mustDial(t, s, e, alias(echoServer(t)))
	exchange(t, conn, "before")
	cut()
	s.events.await(t, "link lost")
	if _, err := s.gateway.Dial(expired(s.ctx), netip.AddrPort{}, 16, 443); !errors.Is(err, gateway.ErrAbsent) {
		t.Errorf("Dial without a link = %v, want ErrAbsent", err)
	}
	s.attach(16, e)
	exchange(t, conn, "after the loss")
	s.attach(16, e) // at once, as after a restart of the client alone
	s.events.await(t, "replaced")
	exchange(t, conn, "after the replacement")
}

func TestFlowsEndAfterTheGraceTime(t *testing.T) {
	t.Parallel()
	s, e := newSite(t, gateway.Config{HostLoopback: true, Grace: time.Millisecond}), netstacktest.NewEnclave(t)
	cut := s.attach(16, e)
	exchange(t, mustDial(t, s, e, alias(echoServer(t))), "before")
	cut()
	s.events.await(t, "did not come back")
	if got := s.gateway.Enclaves(); len(got) != 0 {
		t.Errorf("Enclaves = %+v after the grace time", got)
	}
}

func TestDialPicksTheEnclave(t *testing.T) {
	t.Parallel()
	s := newSite(t, gateway.Config{})
	if _, err := s.gateway.Dial(expired(s.ctx), netip.AddrPort{}, vsockconn.CIDAny, 443); !errors.Is(err, gateway.ErrAbsent) {
		t.Errorf("Dial without enclaves = %v, want ErrAbsent", err)
	}
	client := netip.MustParseAddrPort("203.0.113.5:50000")
	enclaves := map[vsockconn.CID]net.Listener{}
	open := func(cid vsockconn.CID) {
		e := netstacktest.NewEnclave(t)
		l, err := e.ListenTCP(443)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		enclaves[cid] = l
		s.attach(cid, e)
	}
	reach := func(cid, want vsockconn.CID, from netip.AddrPort, seen string) {
		t.Helper()
		conn, err := s.gateway.Dial(s.ctx, from, cid, 443)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		inside, err := enclaves[want].Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer inside.Close()
		if got := inside.RemoteAddr().String(); !strings.HasPrefix(got, seen) {
			t.Errorf("the enclave sees the client %s, want %s", got, seen)
		}
	}
	var waiting sync.WaitGroup
	waiting.Go(func() {
		// A client that comes before the enclave waits for it.
		conn, err := s.gateway.Dial(s.ctx, client, vsockconn.CIDAny, 443)
		if err != nil {
			t.Errorf("Dial before the enclave = %v", err)
			return
		}
		conn.Close()
	})
	open(16)
	waiting.Wait()
	first, err := enclaves[16].Accept()
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	reach(vsockconn.CIDAny, 16, client, "203.0.113.5:")
	reach(16, 16, netip.MustParseAddrPort("127.0.0.1:5000"), tapstack.GatewayAddr().String())
	reach(16, 16, netip.MustParseAddrPort("[2001:db8::1]:5000"), tapstack.GatewayAddr().String())
	reach(16, 16, netip.MustParseAddrPort("[::ffff:203.0.113.9]:5000"), "203.0.113.9:5000")
	open(17)
	if _, err := s.gateway.Dial(s.ctx, client, vsockconn.CIDAny, 443); !errors.Is(err, gateway.ErrSeveral) {
		t.Errorf("Dial with two enclaves and no name = %v, want ErrSeveral", err)
	}
	reach(17, 17, client, "203.0.113.5:50000")
	s.stop()
	if _, err := s.gateway.Dial(s.ctx, client, 16, 443); !errors.Is(err, gateway.ErrClosed) {
		t.Errorf("Dial after Run = %v, want ErrClosed", err)
	}
	a, b := net.Pipe()
	defer b.Close()
	if err := s.gateway.Attach(s.ctx, 16, a, netstack.Peer{}); !errors.Is(err, gateway.ErrClosed) {
		t.Errorf("Attach after Run = %v, want ErrClosed", err)
	}
}

// expired is a context that waits for nothing.
func expired(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	return ctx
}

func TestStopEndsFlows(t *testing.T) {
	t.Parallel()
	s, e := newSite(t, gateway.Config{HostLoopback: true}), netstacktest.NewEnclave(t)
	s.attach(16, e)
	exchange(t, mustDial(t, s, e, alias(echoServer(t))), "before")
	s.stop() // returns: with goleak, that is the proof
	if got := s.gateway.Enclaves(); len(got) != 0 && got[0].Attached {
		t.Errorf("Enclaves = %+v after the end", got)
	}
}

func TestLinkPortServesTheLinkAlone(t *testing.T) {
	t.Parallel()
	s := newSite(t, gateway.Config{})
	transport, err := simvsock.Dir(s.vsock, 16)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return transport.Dial(ctx, vsockconn.Addr{CID: vsockconn.CIDParent, Port: tapstack.LinkPort})
		},
	}}
	for _, tt := range []struct {
		method, path string
		want         int
	}{
		{http.MethodGet, tapstack.ConnectPath, http.StatusMethodNotAllowed},
		{http.MethodPost, "/services/forwarder/expose", http.StatusNotFound},
		{http.MethodGet, "/stats", http.StatusNotFound},
		{http.MethodPost, tapstack.UpgradePath, http.StatusUpgradeRequired},
		{http.MethodPost, "/tapstack/v2/connect", http.StatusNotFound},
	} {
		req, err := http.NewRequestWithContext(s.ctx, tt.method, "http://host"+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != tt.want {
			t.Errorf("%s %s = %d, want %d", tt.method, tt.path, resp.StatusCode, tt.want)
		}
	}
}

func TestOneEnclaveHasABoundOfConnections(t *testing.T) {
	t.Parallel()
	s := newSite(t, gateway.Config{})
	dial := func(cid vsockconn.CID) net.Conn {
		t.Helper()
		transport, err := simvsock.Dir(s.vsock, cid)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := transport.Dial(s.ctx, vsockconn.Addr{CID: vsockconn.CIDParent, Port: tapstack.LinkPort})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	for range 16 {
		dial(16)
	}
	if n, err := dial(16).Read(make([]byte, 1)); err == nil {
		t.Errorf("one connection too many reads %d bytes, want its end", n)
	}
	s.attach(17, netstacktest.NewEnclave(t)) // the others are not affected
}

func TestLinkAPIIsPerEnclave(t *testing.T) {
	t.Parallel()
	s, e := newSite(t, gateway.Config{LinkAPI: func(cid vsockconn.CID) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, cid.String()) })
	}}), netstacktest.NewEnclave(t)
	s.attach(42, e)
	conn := mustDial(t, s, e, netip.AddrPortFrom(tapstack.GatewayAddr(), 80))
	if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if err != nil || !strings.HasSuffix(string(got), "\r\n\r\n42") {
		t.Errorf("inside the link: %q, %v; want the enclave's own CID", got, err)
	}
}
