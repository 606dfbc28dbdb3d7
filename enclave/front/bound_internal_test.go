package front

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/enclave/certs"
	"github.com/corridor-enclave/corridor/revproxy"
)

// bounded is a front for at most so many connections, which are idle after 50 ms, and
// whose app answers a path /wait when it is told to.
type bounded struct {
	*Front
	addr    string
	secure  bool
	arrived chan struct{}
	answer  chan struct{}
}

func newBounded(t *testing.T, most int, lane, secure bool) *bounded {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &bounded{addr: l.Addr().String(), secure: secure, arrived: make(chan struct{}), answer: make(chan struct{})}
	app := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			b.arrived <- struct{}{}
			<-b.answer
		}
	}))
	t.Cleanup(app.Close)
	u, err := url.Parse(app.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy, err := revproxy.New(revproxy.Config{Apps: []*url.URL{u}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	cfg := Config{
		Listeners: []net.Listener{l}, MaxConnections: most, Strict: true, App: readyApp{}, DrainTimeout: time.Second, Log: slog.New(slog.DiscardHandler),
		Proxy: proxy,
	}
	if lane {
		cfg.Fast = proxy
	}
	if secure {
		if cfg.Certificates, err = certs.NewSelfSigned("enclave.example", 0, time.Now); err != nil {
			t.Fatal(err)
		}
	}
	if b.Front, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	b.bound.idleFor = 50 * time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = b.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return b
}

// eachWay runs a test with and without the fast lane and TLS.
func eachWay(t *testing.T, most int, test func(t *testing.T, b *bounded)) {
	t.Helper()
	for _, lane := range []bool{false, true} {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprintf("lane is %t, TLS is %t", lane, secure), func(t *testing.T) {
				t.Parallel()
				test(t, newBounded(t, most, lane, secure))
			})
		}
	}
}

// ask asks once on a connection, and returns what came of it.
func (b *bounded) ask(t *testing.T, c net.Conn, path string) error {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path); err != nil {
		return err
	}
	return b.hear(c)
}

func (b *bounded) hear(c net.Conn) error {
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return err
}

func (b *bounded) dial(t *testing.T) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", b.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if b.secure {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the document is the trust
	}
	return c
}

// TestConnectionsMakeRoom: one that has been idle ends for a new one,
// and none on which somebody waits for an answer.
func TestConnectionsMakeRoom(t *testing.T) {
	t.Parallel()
	eachWay(t, 3, makesRoom)
}

func makesRoom(t *testing.T, b *bounded) {
	waits, idle, other := b.dial(t), b.dial(t), b.dial(t)
	if _, err := io.WriteString(waits, "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-b.arrived
	for _, c := range []net.Conn{idle, other} {
		if err := b.ask(t, c, "/"); err != nil {
			t.Fatal(err)
		}
	}
	// Refused until the old ones have been idle for long enough.
	var fourth net.Conn
	for until := time.Now().Add(10 * time.Second); ; {
		fourth = b.dial(t)
		if b.ask(t, fourth, "/") == nil {
			break
		}
		if time.Now().After(until) {
			t.Fatal("no idle connection made room")
		}
	}
	// Which of the two was idle for longer is a matter of a millisecond.
	if one, both := b.ask(t, idle, "/"), b.ask(t, other, "/"); (one == nil) == (both == nil) {
		t.Errorf("%v, %v; want one to have ended", one, both)
	}
	b.answer <- struct{}{}
	if err := b.hear(waits); err != nil {
		t.Errorf("the one that waited has ended: %v", err)
	}
	if open, closed, _ := b.Connections(); open != 3 || closed != 1 {
		t.Errorf("%d open, %d closed for others", open, closed)
	}
}

// TestConnectionsAreRefused: where none is idle the new one ends, and once one ends by
// itself there is room again.
func TestConnectionsAreRefused(t *testing.T) {
	t.Parallel()
	eachWay(t, 1, refuses)
}

func refuses(t *testing.T, b *bounded) {
	waits := b.dial(t)
	if _, err := io.WriteString(waits, "GET /wait HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-b.arrived
	if err := b.ask(t, b.dial(t), "/"); err == nil {
		t.Error("one too many is served")
	}
	if _, _, refused := b.Connections(); refused != 1 {
		t.Errorf("%d refused", refused)
	}
	b.answer <- struct{}{}
	if err := b.hear(waits); err != nil {
		t.Fatal(err)
	}
	if n, err := waits.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d, %v; want the end", n, err)
	}
	for until := time.Now().Add(10 * time.Second); b.ask(t, b.dial(t), "/") != nil; {
		if time.Now().After(until) {
			t.Fatal("no room for ever")
		}
	}
}

func TestSafeConnections(t *testing.T) {
	t.Parallel()
	if n := SafeConnections(0); n != 64 {
		t.Errorf("without memory: %d", n)
	}
	if n := SafeConnections(128 << 20); n > 1024 || n < 64 {
		t.Errorf("with 128 MiB: %d", n)
	}
}
