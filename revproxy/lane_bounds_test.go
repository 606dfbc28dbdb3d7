package revproxy_test

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
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/revproxy"
)

// RequestTimeout holds for answers that never pause, and for those that the server
// passes on.
func TestLaneBoundsRequests(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]string{
		"a length":    "HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n",
		"chunks":      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffff\r\n",
		"open ended":  "HTTP/1.1 200 OK\r\n\r\n",
		"early hints": "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProxy(t, rawApp(t, func(_ string, c net.Conn) {
				say(t, c, begin)
				tick := time.NewTicker(time.Millisecond)
				defer tick.Stop()
				for b := make([]byte, 4<<10); ; <-tick.C {
					if _, err := c.Write(b); err != nil {
						return
					}
				}
			}), func(c *revproxy.Config) { c.RequestTimeout = 300 * time.Millisecond })
			front, lane := inLane(t, p, p, nil)
			c := dialed(t, front, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			if n, err := io.Copy(io.Discard, c); err != nil || n == 0 || lane.Taken() != 1 {
				t.Errorf("%d bytes, then %v; %d taken", n, err, lane.Taken())
			}
		})
	}
}

// What a client claims about where it is, the app does not see, however it is written.
func TestLaneKeepsClaimsBack(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"X-FORWARDED-FOR", "x_forwarded_for", "X.Forwarded.For", "X|Real`IP", "true!client+ip", "Wl-Proxy-Client-Ip", "proxy", "X-Request_Id"} {
		seen := make(chan string, 1)
		p := newProxy(t, rawApp(t, func(head string, c net.Conn) {
			seen <- head
			say(t, c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}), nil)
		front, lane := inLane(t, p, p, nil)
		if res := speak(t, dial(t, front), "GET / HTTP/1.1\r\nHost: x\r\n"+name+": 198.51.100.66\r\nX.Other: y\r\n\r\n"); res.StatusCode != 200 || lane.Taken() != 1 {
			t.Errorf("%s: %s", name, res.Status)
		}
		if head := <-seen; strings.Contains(head, "198.51.100.66") || !strings.Contains(head, "X.Other: y\r\n") {
			t.Errorf("%s: the app saw %q", name, head)
		}
	}
}

// What net/http understands, the lane does not make it misunderstand: an empty line
// behind a body, and a length that is octal to some.
func TestLaneLeavesOddities(t *testing.T) {
	t.Parallel()
	heads := make(chan string, 3)
	p := newProxy(t, rawApp(t, func(head string, c net.Conn) {
		heads <- head
		_ = readBody(head, c)
		say(t, c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	}), nil)
	front, lane := inLane(t, p, p, nil)
	c := dialed(t, front, "POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na\r\n"+
		"POST /2 HTTP/1.1\r\nHost: x\r\nContent-Length: 010\r\nConnection: close\r\n\r\n0123456789")
	r := bufio.NewReader(c)
	for i := range 2 {
		res, err := http.ReadResponse(r, nil)
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("request %d: %v, %v", i+1, res, err)
		}
	}
	<-heads
	if head := <-heads; !strings.Contains(head, "Content-Length: 10\r\n") || lane.Taken() != 1 {
		t.Errorf("%q, %d taken", head, lane.Taken())
	}
}

// A connection to the app is kept after an answer of any length.
func TestLaneKeepsConnectionsWithBodies(t *testing.T) {
	t.Parallel()
	var opened atomic.Int32
	app := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.URL.Path[1:])
		w.Header().Set("Content-Length", r.URL.Path[1:])
		_, _ = w.Write(make([]byte, n))
	}))
	app.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			opened.Add(1)
		}
	}
	app.Start()
	t.Cleanup(app.Close)
	p := newProxy(t, app.URL, nil)
	front, _ := inLane(t, p, p, nil)
	c := dial(t, front)
	for _, size := range []int{12, 5000, 20_000, 65_536, 81_920, 1 << 20, 12} {
		for range 2 {
			if got := len(body(t, speak(t, c, fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: x\r\n\r\n", size)))); got != size {
				t.Errorf("%d bytes of %d", got, size)
			}
		}
	}
	if n := opened.Load(); n != 1 {
		t.Errorf("%d connections to the app", n)
	}
}

// A panic leaves no request behind.
func TestLaneOutlivesPanics(t *testing.T) {
	t.Parallel()
	p := newProxy(t, "http://127.0.0.1:1", func(c *revproxy.Config) {
		c.Log = slog.New(&panicky{Handler: slog.DiscardHandler})
		c.MaxConcurrent, c.QueueTimeout = 1, time.Millisecond
	})
	front, _ := inLane(t, p, p, nil)
	if _, err := io.Copy(io.Discard, dialed(t, front, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		t.Error(err)
	}
	if res := speak(t, dial(t, front), "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); res.StatusCode != 502 {
		t.Errorf("the next is answered with %s", res.Status)
	}
}

// panicky is a log that panics once.
type panicky struct {
	slog.Handler
	once sync.Once
}

func (h *panicky) Enabled(context.Context, slog.Level) bool { return true }

func (h *panicky) Handle(context.Context, slog.Record) error {
	h.once.Do(func() { panic("of a test") })
	return nil
}

// A client that has begun to ask by one byte has as long for the rest as any.
func TestLaneGivesBeginningsNoIdleTime(t *testing.T) {
	t.Parallel()
	p := newProxy(t, talker(t, func(string) string { return "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" }), nil)
	front, _ := inLane(t, p, p, func(c *revproxy.LaneConfig) {
		c.TLS = selfSigned(t)
		c.Server.ReadHeaderTimeout, c.Server.IdleTimeout = 3*time.Second, time.Hour
	})
	raw := dial(t, front)
	c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true})
	body(t, speak(t, c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	say(t, c, "G")
	if _, err := io.Copy(io.Discard, c); err != nil {
		t.Errorf("not given up: %v", err)
	}
}
