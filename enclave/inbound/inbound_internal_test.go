package inbound

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/corridor-enclave/corridor/tapstack/simvsock"
	"github.com/corridor-enclave/corridor/tapstack/sometimes"
	"github.com/corridor-enclave/corridor/tapstack/stream"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what must happen; nothing waits for it to pass.
const patience = 20 * time.Second

// A stand is a port of an enclave, and how its peers reach it.
type stand struct {
	dir string
	log *tapstacktest.Log
	cfg Config
}

func newStand(t *testing.T) *stand {
	t.Helper()
	s := &stand{dir: t.TempDir(), log: &tapstacktest.Log{}}
	inside, err := simvsock.Dir(s.dir, 16)
	if err != nil {
		t.Fatal(err)
	}
	l, err := inside.Listen(stream.Port)
	if err != nil {
		t.Fatal(err)
	}
	s.cfg = Config{Listener: l, Parent: vsockconn.CIDParent, Log: slog.New(slog.NewTextHandler(s.log, nil))}
	return s
}

// dialAs opens a stream as the peer with this CID.
func (s *stand) dialAs(t *testing.T, cid vsockconn.CID) *stream.Conn {
	t.Helper()
	outside, err := simvsock.Dir(s.dir, cid)
	if err != nil {
		t.Fatal(err)
	}
	c, err := outside.Dial(t.Context(), vsockconn.Addr{CID: 16, Port: stream.Port})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return stream.New(c)
}

// open opens a stream as the host does, for a client.
func (s *stand) open(t *testing.T, client string) *stream.Conn {
	t.Helper()
	c := s.dialAs(t, vsockconn.CIDParent)
	o := stream.Opening{Client: netip.MustParseAddrPort(client), Local: netip.MustParseAddrPort("192.0.2.1:443")}
	if _, err := c.Write(o.Append(nil)); err != nil {
		t.Fatal(err)
	}
	return c
}

func (s *stand) listen(t *testing.T) *Listener {
	t.Helper()
	l := Listen(s.cfg)
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
		l.Wait()
	})
	return l
}

func accept(t *testing.T, l *Listener) net.Conn {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// isClosed checks that the enclave gave the stream up.
func isClosed(t *testing.T, c *stream.Conn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the stream gives %d bytes, %v; want that it is given up", n, err)
	}
}

// TestBadStreamsAreClosed: each alone, and the next one is served.
func TestBadStreamsAreClosed(t *testing.T) {
	t.Parallel()
	whole := stream.Opening{
		Client: netip.MustParseAddrPort("203.0.113.7:1"), Local: netip.MustParseAddrPort("192.0.2.1:443"),
	}.Append(nil)
	for _, tt := range []struct {
		name string
		cid  vsockconn.CID
		says string // by the peer
		ends bool
		log  string
	}{
		{"another enclave", 17, string(whole), false, "not from the parent"},
		{"no header", vsockconn.CIDParent, "GET / HTTP/1.1\r\n\r\n", false, "wrong signature"},
		{"an oversized header", vsockconn.CIDParent, string(whole[:14]) + "\xff\xff", false, "at most 1024 are taken"},
		{"a malformed header", vsockconn.CIDParent, string(whole[:13]) + "\x99" + string(whole[14:]), false, "family"},
		{"half a header", vsockconn.CIDParent, string(whole[:20]), true, "unexpected EOF"},
		{"nothing", vsockconn.CIDParent, "", true, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newStand(t)
			l := s.listen(t)
			bad := s.dialAs(t, tt.cid)
			// It may be closed already.
			_, _ = io.WriteString(bad, tt.says)
			if tt.ends {
				if err := bad.CloseWrite(); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := bad.Read(make([]byte, 1)); err == nil {
				t.Error("the enclave answers")
			}
			s.open(t, "203.0.113.8:2")
			if got := accept(t, l).RemoteAddr().String(); got != "203.0.113.8:2" {
				t.Errorf("then comes %s", got)
			}
			if log := s.log.String(); !strings.Contains(log, tt.log) || (tt.log == "") != (log == "") {
				t.Errorf("log %q, want %q", log, tt.log)
			}
		})
	}
}

// TestSlowHeader: one byte at a time, or none, is not for ever. A stream that is
// kept ready has longer than one that has begun.
func TestSlowHeader(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		says string
		want time.Duration
	}{
		{"silent", "", waitTimeout},
		{"one byte", "\r", headerTimeout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				a := &acceptor{cfg: Config{Log: slog.New(slog.DiscardHandler)}, loose: sometimes.Logger{Log: slog.New(slog.DiscardHandler)}}
				go func() { _, _ = io.WriteString(theirs, tt.says) }()
				start := time.Now()
				_, err := a.readOpening(stream.New(ours))
				var timeout net.Error
				if !errors.As(err, &timeout) || !timeout.Timeout() || time.Since(start) != tt.want {
					t.Errorf("given up after %s with %v, want %s", time.Since(start), err, tt.want)
				}
				ours.Close()
				theirs.Close()
			})
		})
	}
}

// TestSlowOneHoldsUpNobody: others are served while a stream waits, which is
// closed with the listener.
func TestSlowOneHoldsUpNobody(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	l := s.listen(t)
	slow := s.dialAs(t, vsockconn.CIDParent)
	if _, err := io.WriteString(slow, "\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	s.open(t, "203.0.113.8:2")
	accept(t, l)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := slow.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes on a stream that waited when the listener was closed", n)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	s.cfg.MaxConns = 1
	l := s.listen(t)
	s.open(t, "203.0.113.7:1")
	first := accept(t, l)
	second := s.dialAs(t, vsockconn.CIDParent)
	isClosed(t, second)
	if !strings.Contains(s.log.String(), "too many connections") {
		t.Errorf("the log does not say so: %s", s.log)
	}
	if err := first.(*stream.Lingering).Reset(); err != nil {
		t.Fatal(err)
	}
	s.open(t, "203.0.113.7:3")
	if got := accept(t, l).RemoteAddr().String(); got != "203.0.113.7:3" {
		t.Errorf("then comes %s", got)
	}
}

// TestClientUnknown: a host that names no client is seen itself.
func TestClientUnknown(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	l := s.listen(t)
	if _, err := s.dialAs(t, vsockconn.CIDParent).Write(stream.Opening{}.Append(nil)); err != nil {
		t.Fatal(err)
	}
	if got := accept(t, l).RemoteAddr(); got.Network() != "vsock" {
		t.Errorf("the client is %s", got)
	}
}

// TestCloseIsAnEnd: what was written before Close arrives, and then the end of the
// stream and no reset, whatever the client was about to say.
func TestCloseIsAnEnd(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	l := s.listen(t)
	host := s.open(t, "203.0.113.7:1")
	inside := accept(t, l)
	reading := make(chan error, 1)
	go func() {
		_, err := inside.Read(make([]byte, 1))
		reading <- err
	}()
	if _, err := io.WriteString(inside, "answer"); err != nil {
		t.Fatal(err)
	}
	if err := inside.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-reading; !errors.Is(err, net.ErrClosed) {
		t.Errorf("a Read that waited: %v", err)
	}
	if _, err := inside.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write after Close: %v", err)
	}
	if _, err := io.WriteString(host, "too late"); err != nil {
		t.Errorf("the client goes on: %v", err)
	}
	if got, err := io.ReadAll(host); err != nil || string(got) != "answer" {
		t.Errorf("the host got %q, %v", got, err)
	}
	if err := host.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	l.Wait()
}

// TestLingeringEnds: a client that never ends its direction is given up.
func TestLingeringEnds(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	l := s.listen(t)
	host := s.open(t, "203.0.113.7:1")
	if err := accept(t, l).Close(); err != nil {
		t.Fatal(err)
	}
	l.Wait()
	var err error
	for err == nil {
		_, err = host.Write([]byte("still there?"))
	}
	if !errors.Is(err, syscall.EPIPE) {
		t.Errorf("the host writes with %v", err)
	}
}

// forward runs a Forwarder to an app.
func (s *stand) forward(t *testing.T, app net.Listener, drain time.Duration) (stop func() error) {
	t.Helper()
	f := NewForwarder(ForwardConfig{Config: s.cfg, Network: app.Addr().Network(), Address: app.Addr().String(), DrainTimeout: drain})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { _ = stop() })
	return stop
}

func newApp(t *testing.T) net.Listener {
	t.Helper()
	app, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { app.Close() })
	return app
}

func acceptApp(t *testing.T, app net.Listener) *net.TCPConn {
	t.Helper()
	c, err := app.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

func TestForwardRefuses(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	app := newApp(t)
	app.Close()
	s.forward(t, app, patience)
	isClosed(t, s.open(t, "203.0.113.7:1"))
	if !strings.Contains(s.log.String(), "app takes no connection") {
		t.Errorf("the log does not say so: %s", s.log)
	}
}

// TestForward: both directions, each with its own end, and resets.
func TestForward(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	app := newApp(t)
	stop := s.forward(t, app, patience)

	host := s.open(t, "203.0.113.7:1")
	inside := acceptApp(t, app)
	for _, half := range []struct{ from, to net.Conn }{{host, inside}, {inside, host}} {
		if _, err := io.WriteString(half.from, "hello"); err != nil {
			t.Fatal(err)
		}
		if err := half.from.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(half.to); err != nil || string(got) != "hello" {
			t.Errorf("%q, %v", got, err)
		}
	}

	host = s.open(t, "203.0.113.7:2")
	inside = acceptApp(t, app)
	if err := host.Reset(); err != nil {
		t.Fatal(err)
	}
	if _, err := inside.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the app reads with %v, want the client's reset", err)
	}

	host = s.open(t, "203.0.113.7:3")
	inside = acceptApp(t, app)
	if err := errors.Join(inside.SetLinger(0), inside.Close()); err != nil {
		t.Fatal(err)
	}
	isClosed(t, host)
	if err := stop(); err != nil {
		t.Errorf("Run = %v", err)
	}
}

// TestForwardDrains: a connection that is under way ends by itself, or when time
// is up.
func TestForwardDrains(t *testing.T) {
	t.Parallel()
	for _, drain := range []time.Duration{time.Millisecond, patience} {
		s := newStand(t)
		app := newApp(t)
		stop := s.forward(t, app, drain)
		host := s.open(t, "203.0.113.7:1")
		inside := acceptApp(t, app)
		stopped := make(chan error, 1)
		go func() { stopped <- stop() }()
		if drain == patience {
			if err := errors.Join(host.CloseWrite(), inside.CloseWrite()); err != nil {
				t.Fatal(err)
			}
		}
		if err := <-stopped; err != nil {
			t.Errorf("Run = %v", err)
		}
		if cut := strings.Contains(s.log.String(), "are cut"); cut != (drain != patience) {
			t.Errorf("with %s to drain: %s", drain, s.log)
		}
	}
}

// A brokenListener fails for good.
type brokenListener struct{ net.Listener }

func (brokenListener) Accept() (net.Conn, error) { return nil, net.ErrClosed }

func TestForwardNoticesThatItsListenerIsGone(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	s.cfg.Listener = brokenListener{s.cfg.Listener}
	f := NewForwarder(ForwardConfig{Config: s.cfg, Network: "tcp", Address: "127.0.0.1:1"})
	if err := f.Run(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Run = %v", err)
	}
}
