package revproxy

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"testing"
)

// A wrappedListener accepts connections that are around others.
type wrappedListener struct {
	net.Listener
	moved chan net.Conn
}

func (l *wrappedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &wrappedConn{Conn: &wrappedConn{Conn: c}, moved: l.moved}, nil
}

type wrappedConn struct {
	net.Conn
	moved chan net.Conn // nil: it is within another
}

func (c *wrappedConn) Inner() net.Conn { return c.Conn }

func (c *wrappedConn) Move(to net.Conn) {
	if c.moved == nil {
		c.Conn = to
		return
	}
	c.Conn.(*wrappedConn).Move(to)
	c.moved <- to
}

// TestLoopsServe: sockets are served on a loop, which keeps the connection to the app,
// also within other connections; what is not simple leaves it and takes that
// connection over.
func TestLoopsServe(t *testing.T) {
	t.Parallel()
	if os.Getenv("CORRIDOR_TEST_LANE") != "" {
		return // no loops
	}
	dialed := make(chan string, 2)
	app := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { dialed <- r.RemoteAddr }))
	t.Cleanup(app.Close)
	to, err := url.Parse(app.URL)
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(Config{Apps: []*url.URL{to}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	s := httptest.NewUnstartedServer(p)
	l, err := p.NewLane(LaneConfig{Server: s.Config, Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	moved := make(chan net.Conn, 2)
	s.Listener = l.Listen(&wrappedListener{s.Listener, moved})
	s.Start()
	t.Cleanup(l.Close)
	t.Cleanup(s.Close)
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	answers := bufio.NewReader(c)
	ask := func(request string) {
		t.Helper()
		if _, err := io.WriteString(c, request); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
	}
	ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if _, ok := (<-moved).(*net.TCPConn); ok {
		t.Error("the socket was not moved to a loop")
	}
	if n, taken := l.loops.idle(p.apps.members[0]), l.Taken(); n != 1 || taken != 1 {
		t.Errorf("%d connections to the app are kept on loops, and %d requests were taken; want 1 and 1", n, taken)
	}
	ask("GET http://x/ HTTP/1.1\r\nHost: x\r\n\r\n") // the absolute form is not simple
	if _, ok := (<-moved).(*net.TCPConn); !ok {
		t.Error("the socket was not given back")
	}
	if n, first, second := l.loops.idle(p.apps.members[0]), <-dialed, <-dialed; n != 0 || first != second {
		t.Errorf("%d connections are left to a loop, and the app saw %s and %s; want one connection taken over", n, first, second)
	}
}
