package egress_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/corridor-enclave/corridor/host/egress"
	"github.com/corridor-enclave/corridor/host/gateway"
	"github.com/corridor-enclave/corridor/tapstack/simvsock"
	"github.com/corridor-enclave/corridor/tapstack/stream"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// A world is what enclaves of a test may reach.
type world map[string][]netip.AddrPort

func (w world) Find(name string, addr netip.Addr, _ uint16) ([]netip.AddrPort, error) {
	switch name {
	case "denied.example":
		return nil, gateway.ErrDenied
	case "nobody.example":
		return nil, gateway.ErrNoName
	case "silent.example":
		return nil, gateway.ErrNoResolver
	case "":
		name = addr.String()
	}
	return w[name], nil
}

// A site is a running server and the folder that it listens in.
type site struct {
	t      *testing.T
	dir    string
	server *egress.Server
	stop   func() // asks it to stop and waits
}

func start(t *testing.T, w egress.Outside, limits egress.Limits) *site {
	t.Helper()
	dir := t.TempDir()
	outside, err := simvsock.Dir(dir, vsockconn.CIDParent)
	if err != nil {
		t.Fatal(err)
	}
	l, err := outside.Listen(stream.CallPort)
	if err != nil {
		t.Fatal(err)
	}
	s := egress.New(egress.Config{
		Listener: l, Limits: limits, Log: slog.New(slog.DiscardHandler),
		Outside: func(context.Context, vsockconn.CID) egress.Outside { return w },
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	t.Cleanup(stop)
	return &site{t: t, dir: dir, server: s, stop: stop}
}

// open is a stream of the enclave cid on which nothing was said.
func (s *site) open(cid vsockconn.CID) *stream.Conn {
	s.t.Helper()
	inside, err := simvsock.Dir(s.dir, cid)
	if err != nil {
		s.t.Fatal(err)
	}
	c, err := inside.Dial(s.t.Context(), vsockconn.Addr{CID: vsockconn.CIDParent, Port: stream.CallPort})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		s.t.Fatal(err)
	}
	return stream.New(c)
}

// call opens a stream and calls.
func (s *site) call(cid vsockconn.CID, c stream.Call) (*stream.Conn, stream.Reply) {
	s.t.Helper()
	conn := s.open(cid)
	record, err := c.Append(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	_, _ = conn.Write(record) // a host without room does not wait for it
	r, err := stream.ReadReply(conn)
	if err != nil {
		s.t.Fatal(err)
	}
	return conn, r
}

// listen serves every connection on loopback and returns where.
func listen(t *testing.T, serve func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(patience))
				serve(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func echo(c *net.TCPConn) {
	_, _ = io.Copy(c, c)
	_ = c.CloseWrite()
	_, _ = io.Copy(io.Discard, c)
}

// free is an address on which nothing listens.
func free(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func TestCallsThatFail(t *testing.T) {
	t.Parallel()
	s := start(t, world{"gone.example": {free(t)}}, egress.Limits{})
	for _, tt := range []struct {
		call stream.Call
		want stream.Status
	}{
		{stream.Call{Name: "denied.example", Port: 443}, stream.Denied},
		{stream.Call{Name: "nobody.example", Port: 443}, stream.NoSuchName},
		{stream.Call{Name: "silent.example", Port: 443}, stream.NoResolver},
		{stream.Call{Name: "gone.example", Port: 443}, stream.Refused},
	} {
		conn, r := s.call(16, tt.call)
		if r.Status != tt.want || r.Reason == "" {
			t.Errorf("%s: %+v, want %s", tt.call, r, tt.want)
		}
		if rest, err := io.ReadAll(conn); len(rest) > 0 || (err != nil && !errors.Is(err, syscall.ECONNRESET)) {
			t.Errorf("%s: behind the reply came %q, %v", tt.call, rest, err)
		}
		if n := s.server.Counts().Replies[tt.want]; n != 1 {
			t.Errorf("%s is counted %d times", tt.want, n)
		}
	}
}

// TestWhatIsNoCall ends that stream alone.
func TestWhatIsNoCall(t *testing.T) {
	t.Parallel()
	s := start(t, world{"echo.example": {listen(t, echo)}}, egress.Limits{})
	for _, says := range []string{"", "C", "CALL\x01\x03\x01\xbb\x00\x00\x0bexample"} {
		conn := s.open(16)
		if _, err := conn.Write([]byte(says)); err != nil {
			t.Fatal(err)
		}
		if err := conn.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, _ := io.ReadAll(conn); len(got) > 0 {
			t.Errorf("%q was answered with %q", says, got)
		}
	}
	for _, vector := range []string{"call-version2", "call-port0", "call-no-name", "stream-tcp4"} {
		conn := s.open(16)
		if _, err := conn.Write(tapstacktest.Vector(t, "../../tapstack/testdata/"+vector+".hex")); err != nil {
			t.Fatal(err)
		}
		if r, err := stream.ReadReply(conn); err != nil || r.Status != stream.Misunderstood {
			t.Errorf("%s: %+v, %v", vector, r, err)
		}
	}
	if _, r := s.call(16, stream.Call{Name: "echo.example", Port: 1}); r.Status != stream.Connected {
		t.Errorf("afterwards: %+v", r)
	}
}

func TestCallCarries(t *testing.T) {
	t.Parallel()
	at := listen(t, echo)
	// The first address fails, and the next one is tried.
	s := start(t, world{"echo.example": {free(t), at}, "127.0.0.1": {at}}, egress.Limits{})
	whole := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for _, call := range []stream.Call{{Name: "echo.example", Port: 443}, {Addr: netip.MustParseAddr("127.0.0.1"), Port: 443, Patience: time.Minute}} {
		conn, r := s.call(16, call)
		if r.Status != stream.Connected || r.Reason != at.String() {
			t.Fatalf("%+v", r)
		}
		go func() {
			_, _ = conn.Write(whole)
			_ = conn.CloseWrite()
		}()
		if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, whole) {
			t.Errorf("%d bytes came back, %v", len(got), err)
		}
	}
	s.stop()
	if n := s.server.Counts(); n.Open != 0 || n.UplinkBytes != 2*uint64(len(whole)) || n.DownlinkBytes != n.UplinkBytes {
		t.Errorf("%+v", n)
	}
}

func TestResetsStayResets(t *testing.T) {
	t.Parallel()
	heard := make(chan error, 2)
	at := listen(t, func(c *net.TCPConn) {
		said := make([]byte, 1)
		if _, err := io.ReadFull(c, said); err == nil && said[0] == 'r' {
			_, _ = c.Write([]byte("half"))
			_ = c.SetLinger(0)
			return
		}
		_, err := io.ReadAll(c)
		heard <- err
	})
	s := start(t, world{"a.example": {at}}, egress.Limits{})
	conn, _ := s.call(16, stream.Call{Name: "a.example", Port: 1})
	if _, err := conn.Write([]byte("r")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(conn); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the enclave read to %v, want a reset", err)
	}
	conn, _ = s.call(16, stream.Call{Name: "a.example", Port: 1})
	if _, err := conn.Write([]byte("xhalf")); err != nil {
		t.Fatal(err)
	}
	_ = conn.Reset()
	if err := <-heard; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the destination read to %v, want a reset", err)
	}
}

func TestLimitsAreEachEnclavesOwn(t *testing.T) {
	t.Parallel()
	w := &held{world: world{"echo.example": {listen(t, echo)}}, asked: make(chan struct{}), release: make(chan struct{})}
	release := sync.OnceFunc(func() { close(w.release) })
	s := start(t, w, egress.Limits{Open: 2, Calling: 1, Pending: 1})
	echoes := stream.Call{Name: "echo.example", Port: 1}
	t.Cleanup(release) // before the server is stopped
	waiting := s.open(16)
	record, err := stream.Call{Name: "held.example", Port: 1}.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := waiting.Write(record); err != nil {
		t.Fatal(err)
	}
	<-w.asked
	if _, r := s.call(16, echoes); r.Status != stream.Crowded {
		t.Errorf("beside one that is not connected yet: %+v", r)
	}
	release()
	if r, err := stream.ReadReply(waiting); err != nil || r.Status != stream.Denied {
		t.Errorf("%+v, %v", r, err)
	}
	first, r := s.call(17, echoes)
	if r.Status != stream.Connected {
		t.Errorf("another enclave: %+v", r)
	}
	if second, r := s.call(17, echoes); r.Status != stream.Connected {
		t.Errorf("its second one: %+v", r)
	} else if _, r := s.call(17, echoes); r.Status != stream.Crowded {
		t.Errorf("its third one: %+v", r)
	} else {
		closeWhole(t, second)
	}
	closeWhole(t, first)
}

// A held world answers for one name when it is told to.
type held struct {
	world
	asked, release chan struct{}
}

func (h *held) Find(name string, addr netip.Addr, port uint16) ([]netip.AddrPort, error) {
	if name == "held.example" {
		close(h.asked)
		<-h.release
		return nil, gateway.ErrDenied
	}
	return h.world.Find(name, addr, port)
}

// closeWhole ends both directions in order.
func closeWhole(t *testing.T, c *stream.Conn) {
	t.Helper()
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(c); err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestStopResets(t *testing.T) {
	t.Parallel()
	s := start(t, world{"echo.example": {listen(t, echo)}}, egress.Limits{})
	silent := s.open(16)
	conn, r := s.call(16, stream.Call{Name: "echo.example", Port: 1})
	if r.Status != stream.Connected {
		t.Fatalf("%+v", r)
	}
	s.stop()
	if _, err := io.ReadAll(conn); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a connection under way was read to %v, want a reset", err)
	}
	if _, err := silent.Read(make([]byte, 1)); err == nil {
		t.Error("a silent stream goes on")
	}
}

// TestDrain: a connection that is there goes on, nothing more is accepted, and the
// end of the last one is told. Without it the end of patience is.
func TestDrain(t *testing.T) {
	t.Parallel()
	s := start(t, world{"echo.example": {listen(t, echo)}}, egress.Limits{})
	conn, r := s.call(16, stream.Call{Name: "echo.example", Port: 1})
	if r.Status != stream.Connected {
		t.Fatalf("%+v", r)
	}
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	s.server.Drain(impatient)
	inside, err := simvsock.Dir(s.dir, 16)
	if err != nil {
		t.Fatal(err)
	}
	if late, err := inside.Dial(t.Context(), vsockconn.Addr{CID: vsockconn.CIDParent, Port: stream.CallPort}); err == nil {
		late.Close()
		t.Error("another stream is accepted")
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		s.server.Drain(t.Context())
	}()
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Errorf("while it drains: %v", err)
	}
	select {
	case <-drained:
		t.Error("drained with a connection open")
	default:
	}
	closeWhole(t, conn)
	<-drained
	s.server.Drain(t.Context()) // nothing is left
	s.stop()
}
