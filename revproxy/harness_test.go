package revproxy_test

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/corridor-enclave/corridor/revproxy"
	"github.com/corridor-enclave/corridor/revproxy/h2"
)

// patience bounds what a broken test waits for; no test measures it.
const patience = 10 * time.Second

// newProxy makes a proxy in front of an app's URL.
func newProxy(t *testing.T, app string, change func(*revproxy.Config)) *revproxy.Proxy {
	t.Helper()
	p, err := revproxy.New(config(t, app, change))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func config(t *testing.T, app string, change func(*revproxy.Config)) revproxy.Config {
	t.Helper()
	u, err := url.Parse(app)
	if err != nil {
		t.Fatal(err)
	}
	c := revproxy.Config{Apps: []*url.URL{u}, Log: discard()}
	if change != nil {
		change(&c)
	}
	return c
}

// serve puts a handler behind an HTTP server, and both behind the test's end.
func serve(t *testing.T, h http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	withLane(t, s)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// withLane puts the fast lane before a server that has not started and whose
// handler is a proxy.
func withLane(t *testing.T, s *httptest.Server) {
	t.Helper()
	p, ok := s.Config.Handler.(*revproxy.Proxy)
	if !ok {
		return
	}
	lane, err := p.NewLane(laneConfig(s.Config))
	if err != nil {
		t.Fatal(err)
	}
	s.Listener = lane.Listen(s.Listener)
	t.Cleanup(lane.Close)
}

// laneWay is the environment variable that says which way the tests go: by event
// loops, where the fast lane's connections are unless it says another, by
// goroutines, or off the lane.
const (
	laneWay        = "CORRIDOR_TEST_LANE"
	laneOff        = "off"
	laneGoroutines = "goroutines"
)

// withH2 has a server that has not started serve HTTP/2 by our own package, where the
// fast lane is on.
func withH2(t *testing.T, s *httptest.Server) {
	t.Helper()
	if laneIsOff() {
		return
	}
	if _, err := h2.Configure(s.Config); err != nil {
		t.Fatal(err)
	}
}

func laneIsOff() bool { return os.Getenv(laneWay) == laneOff }

func laneConfig(s *http.Server) revproxy.LaneConfig {
	return revproxy.LaneConfig{Server: s, Off: laneIsOff(), Goroutines: os.Getenv(laneWay) == laneGoroutines}
}

// appFunc is an app as a handler, in front of it a proxy, in front of that a server.
func appFunc(t *testing.T, app http.HandlerFunc) (*httptest.Server, *revproxy.Proxy) {
	t.Helper()
	p := newProxy(t, serve(t, app).URL, nil)
	return serve(t, p), p
}

// rawApp is an app that speaks bytes: it reads the head of a request and does as
// it likes.
func rawApp(t *testing.T, act func(head string, c net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(patience))
				head, err := readHead(bufio.NewReader(iotest.OneByteReader(c))) // not a byte of the body
				if err == nil {
					act(head, c)
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); conns.Wait() })
	return "http://" + l.Addr().String()
}

func readHead(r *bufio.Reader) (string, error) {
	var head strings.Builder
	for {
		line, err := r.ReadString('\n')
		head.WriteString(line)
		if err != nil || line == "\r\n" {
			return head.String(), err
		}
	}
}

// dial opens a connection to a server for a client that speaks bytes.
func dial(t *testing.T, s *httptest.Server) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { c.Close() })
	return c
}

// speak sends bytes and parses the answer.
func speak(t *testing.T, c net.Conn, request string) *http.Response {
	t.Helper()
	if request != "" {
		if _, err := io.WriteString(c, request); err != nil {
			t.Fatal(err)
		}
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return res
}

func body(t *testing.T, res *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
