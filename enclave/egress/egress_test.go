package egress_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/enclave/egress"
	"github.com/corridor-enclave/corridor/tapstack/stream"
)

const patience = 20 * time.Second

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// fakeHost takes calls and does with each what the test says. It returns what
// opens a stream to it.
func fakeHost(t *testing.T, serve func(stream.Call, *stream.Conn)) func(context.Context) (net.Conn, error) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
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
				call, err := stream.ReadCall(c)
				if err != nil {
					t.Errorf("the host got no call: %v", err)
					return
				}
				serve(call, stream.New(c))
			})
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", l.Addr().String())
	}
}

// echo connects every call, and says back what comes, to the end.
func echo(_ stream.Call, c *stream.Conn) {
	_, _ = c.Write(stream.Reply{Reason: "192.0.2.1:443"}.Append(nil))
	_, _ = io.Copy(c, c)
	_ = c.CloseWrite()
	_, _ = io.Copy(io.Discard, c)
}

func newDialer(t *testing.T, c egress.Config) *egress.Dialer {
	t.Helper()
	c.Log = quiet()
	if c.Policy.Allow == nil {
		c.Policy = rules(t, "*")
	}
	d := egress.New(c)
	t.Cleanup(d.Wait)
	return d
}

func TestDialFails(t *testing.T) {
	t.Parallel()
	says := func(b []byte) func(stream.Call, *stream.Conn) {
		return func(_ stream.Call, c *stream.Conn) { _, _ = c.Write(b) }
	}
	reply := func(s stream.Status) func(stream.Call, *stream.Conn) {
		return says(stream.Reply{Status: s, Reason: "as it says"}.Append(nil))
	}
	for _, tt := range []struct {
		name    string
		address string
		host    func(stream.Call, *stream.Conn)
		is      error
		says    string
		late    bool
	}{
		{name: "not TCP's address", address: "example.com", says: "missing port"},
		{name: "a port of letters", address: "example.com:https", says: "no port"},
		{name: "a number", address: "127.1:80", says: "neither a host name"},
		{name: "not allowed", address: "127.0.0.1:80", is: egress.ErrDenied, says: "this enclave itself"},
		{name: "host ends the stream", host: func(stream.Call, *stream.Conn) {}, is: io.ErrUnexpectedEOF},
		{name: "host says half", host: says([]byte{1, 0, 200}), is: io.ErrUnexpectedEOF},
		{name: "host says nonsense", host: says([]byte("HTTP/1.1 400\r\n\r\n")), is: stream.ErrReply},
		{name: "host's policy", host: reply(stream.Denied), says: "the host says denied (as it says)"},
		{name: "no name", host: reply(stream.NoSuchName), says: "no such name"},
		{name: "refused", host: reply(stream.Refused), is: syscall.ECONNREFUSED},
		{name: "no way", host: reply(stream.Unreachable), is: syscall.EHOSTUNREACH},
		{name: "too slow", host: reply(stream.TooSlow), late: true, says: "too slow"},
		{name: "from the future", host: reply(77), says: "status 77"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			address := "example.com:443"
			if tt.address != "" {
				address = tt.address
			}
			d := newDialer(t, egress.Config{Call: fakeHost(t, tt.host)})
			conn, err := d.DialContext(t.Context(), "tcp", address)
			var op *net.OpError
			if err == nil || conn != nil || !errors.As(err, &op) || op.Op != "dial" || op.Timeout() != tt.late ||
				!strings.Contains(err.Error(), tt.says) || (tt.is != nil && !errors.Is(err, tt.is)) {
				t.Errorf("%v, %v; want %v with %q", conn, err, tt.is, tt.says)
			}
			if n := d.Counts(); n.Open != 0 || n.Connected != 0 {
				t.Errorf("%+v", n)
			}
		})
	}
	if _, err := newDialer(t, egress.Config{}).DialContext(t.Context(), "udp", "example.com:53"); err == nil {
		t.Error("a datagram socket was made")
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	t.Parallel()
	called := make(chan struct{})
	over := make(chan struct{})
	call := fakeHost(t, func(stream.Call, *stream.Conn) { close(called); <-over })
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-called; cancel() }()
	d := newDialer(t, egress.Config{Call: call})
	_, err := d.DialContext(ctx, "tcp", "example.com:443")
	close(over)
	if !errors.Is(err, context.Canceled) || d.Counts().Failed != 1 {
		t.Errorf("%v, %+v", err, d.Counts())
	}
}

func TestDialSaysWhatTheHostNeeds(t *testing.T) {
	t.Parallel()
	calls := make(chan stream.Call, 1)
	d := newDialer(t, egress.Config{Call: fakeHost(t, func(c stream.Call, s *stream.Conn) { calls <- c; echo(c, s) })})
	conn, err := d.DialContext(t.Context(), "tcp", "Example.COM.:443")
	if err != nil {
		t.Fatal(err)
	}
	if call := <-calls; call.Name != "example.com" || call.Port != 443 || call.Patience <= 0 || call.Patience > egress.DialTimeout {
		t.Errorf("%+v", call)
	}
	if conn.RemoteAddr().String() != "example.com:443" || conn.RemoteAddr().Network() != "tcp" {
		t.Errorf("connected to %v", conn.RemoteAddr())
	}
	conn.Close()
}

// TestCloseIsAnEnd: a client of net/http's kind knows nothing but Close, and what
// it sent is whole.
func TestCloseIsAnEnd(t *testing.T) {
	t.Parallel()
	heard := make(chan error, 1)
	d := newDialer(t, egress.Config{Call: fakeHost(t, func(_ stream.Call, c *stream.Conn) {
		_, _ = c.Write(stream.Reply{}.Append(nil))
		_, err := io.Copy(io.Discard, c)
		heard <- err
	})})
	conn, err := d.DialContext(t.Context(), "tcp", "example.com:443")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("whole")); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if err := <-heard; err != nil {
		t.Errorf("the host heard %v, want an end", err)
	}
}

func TestRoomIsBoundedAndComesBack(t *testing.T) {
	t.Parallel()
	d := newDialer(t, egress.Config{Call: fakeHost(t, echo), MaxConns: 1})
	first, err := d.DialContext(t.Context(), "tcp", "example.com:443")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.DialContext(t.Context(), "tcp", "example.com:443"); !errors.Is(err, egress.ErrCrowded) {
		t.Errorf("a second one: %v", err)
	}
	first.Close()
	d.Wait()
	second, err := d.DialContext(t.Context(), "tcp", "example.com:443")
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
	if n := d.Counts(); n.Connected != 2 || n.Crowded != 1 {
		t.Errorf("%+v", n)
	}
}

// serve runs a server and returns its address.
func serve(t *testing.T, newServer func(net.Listener, *egress.Dialer, *slog.Logger) *egress.Server, d *egress.Dialer) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := background(func() error { return newServer(l, d, quiet()).Run(ctx) })
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	return l.Addr().String()
}

func background(run func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- run() }()
	return done
}

func dial(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

const (
	socksExample   = "\x05\x01\x00\x05\x01\x00\x03\x0bexample.com\x01\xbb"
	socksYes       = "\x05\x00\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"
	connectExample = "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n"
	connectYes     = "HTTP/1.1 200 Connected\r\n\r\n"
)

func TestServersCarry(t *testing.T) {
	t.Parallel()
	d := newDialer(t, egress.Config{Call: fakeHost(t, echo)})
	whole := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for _, tt := range []struct{ name, at, says, hears string }{
		{"SOCKS", serve(t, egress.NewSOCKS, d), socksExample, socksYes},
		{"CONNECT", serve(t, egress.NewCONNECT, d), connectExample, connectYes},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, tt.at)
			go func() {
				// In one write with the request: it is not lost.
				_, _ = c.Write(append([]byte(tt.says), whole...))
				_ = c.CloseWrite()
			}()
			if got, err := io.ReadAll(c); err != nil || string(got) != tt.hears+string(whole) {
				t.Errorf("%d bytes came back, %v; want %d", len(got), err, len(tt.hears)+len(whole))
			}
		})
	}
}

func TestServersPassAResetOn(t *testing.T) {
	t.Parallel()
	d := newDialer(t, egress.Config{Call: fakeHost(t, func(_ stream.Call, c *stream.Conn) {
		_, _ = c.Write(append(stream.Reply{}.Append(nil), "half"...))
		_, _ = io.ReadFull(c, make([]byte, 4)) // until the client has it
		_ = c.Reset()
	})})
	c := dial(t, serve(t, egress.NewSOCKS, d))
	if _, err := c.Write([]byte(socksExample)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, len(socksYes)+4)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("more")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read to %v, want a reset", err)
	}
}

func TestServersSayWhyNot(t *testing.T) {
	t.Parallel()
	statuses := map[string]stream.Status{
		"denied.example": stream.Denied, "gone.example": stream.Refused, "nowhere.example": stream.Unreachable,
		"nobody.example": stream.NoSuchName, "slow.example": stream.TooSlow, "odd.example": stream.Failed,
	}
	d := newDialer(t, egress.Config{Policy: rules(t, "*.example"), Call: fakeHost(t, func(call stream.Call, c *stream.Conn) {
		_, _ = c.Write(stream.Reply{Status: statuses[call.Name]}.Append(nil))
	})})
	socksAt, connectAt := serve(t, egress.NewSOCKS, d), serve(t, egress.NewCONNECT, d)
	for _, tt := range []struct {
		name   string
		code   byte
		status string
	}{
		{"not.allowed", 2, "403 Forbidden"}, {"localhost", 2, "403 Forbidden"}, {"denied.example", 2, "403 Forbidden"},
		{"gone.example", 5, "502 Bad Gateway"}, {"nowhere.example", 4, "502 Bad Gateway"}, {"nobody.example", 4, "502 Bad Gateway"},
		{"slow.example", 6, "504 Gateway Timeout"}, {"odd.example", 1, "502 Bad Gateway"}, {"127.1", 1, "400 Bad Request"},
	} {
		c := dial(t, socksAt)
		if _, err := c.Write([]byte("\x05\x01\x00\x05\x01\x00\x03" + string(rune(len(tt.name))) + tt.name + "\x01\xbb")); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(c); err != nil || len(got) != 12 || got[3] != tt.code {
			t.Errorf("SOCKS to %s: % x, %v; want %d", tt.name, got, err, tt.code)
		}
		c = dial(t, connectAt)
		if _, err := c.Write([]byte("CONNECT " + tt.name + ":443 HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 "+tt.status+"\r\n") {
			t.Errorf("CONNECT to %s: %q, %v; want %s", tt.name, got, err, tt.status)
		}
	}
}

// TestServerStops: connections under way are reset and nothing is left.
func TestServerStops(t *testing.T) {
	t.Parallel()
	d := newDialer(t, egress.Config{Call: fakeHost(t, echo)})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := background(func() error { return egress.NewSOCKS(l, d, quiet()).Run(ctx) })
	under, silent := dial(t, l.Addr().String()), dial(t, l.Addr().String())
	if _, err := under.Write([]byte(socksExample)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(under, make([]byte, len(socksYes))); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run = %v", err)
	}
	if _, err := io.ReadAll(under); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a connection under way was read to %v, want a reset", err)
	}
	if n, err := silent.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Errorf("a silent client read %d, %v", n, err)
	}
	if n := d.Counts(); n.Open != 0 {
		t.Errorf("%+v", n)
	}
}
