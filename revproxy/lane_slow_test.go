package revproxy_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/revproxy"
)

// A guardedListener gives each write of its connections a time, as the enclave's front
// does.
type guardedListener struct {
	net.Listener
	timeout time.Duration
}

func (l guardedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &guarded{c, l.timeout}, nil
}

type guarded struct {
	net.Conn
	timeout time.Duration
}

func (g *guarded) Write(p []byte) (int, error) {
	_ = g.Conn.SetWriteDeadline(time.Now().Add(g.timeout))
	return g.Conn.Write(p)
}

func (g *guarded) Inner() net.Conn  { return g.Conn }
func (g *guarded) Move(to net.Conn) { g.Conn = to }

// behind puts a handler and a proxy's lane behind a guarded listener.
func behind(t *testing.T, h http.Handler, p *revproxy.Proxy, timeout time.Duration) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ReadHeaderTimeout = timeout
	lane, err := p.NewLane(laneConfig(s.Config))
	if err != nil {
		t.Fatal(err)
	}
	s.Listener = lane.Listen(guardedListener{s.Listener, timeout})
	s.Start()
	t.Cleanup(lane.Close)
	t.Cleanup(s.Close)
	return s
}

// TestLaneCutsClientsThatSendSlowly: a client that sends a byte, and the next only in a
// minute, has the time that one has who sends no more.
func TestLaneCutsClientsThatSendSlowly(t *testing.T) {
	t.Parallel()
	p := newProxy(t, serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })).URL, nil)
	const moment = 200 * time.Millisecond
	front := behind(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(moment)) // as the front's
		p.ServeHTTP(w, r)
	}), p, moment)
	for name, tt := range map[string]struct{ says, answered string }{
		"nothing":             {"", ""},
		"of the head":         {"G", ""},
		"of a field":          {"GET / HTTP/1.1\r\nHost: x\r\nA", ""},
		"of the content":      {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx", "HTTP/1.1 408 "},
		"of a chunk":          {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nx", "HTTP/1.1 408 "},
		"of much content":     {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\nx", "HTTP/1.1 408 "},
		"of the next request": {"GET / HTTP/1.1\r\nHost: x\r\n\r\nG", "HTTP/1.1 200 "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, front)
			say(t, c, tt.says)
			got, err := io.ReadAll(c) // with a deadline
			if !strings.HasPrefix(string(got), tt.answered) || isTimeout(err) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

// TestLaneCutsClientsThatTakeNothing: a client that takes a byte of an answer, and the
// next only in a minute, ends the app's answer too, of which the lane has little.
func TestLaneCutsClientsThatTakeNothing(t *testing.T) {
	t.Parallel()
	for name, length := range map[string]string{"in chunks": "", "of a length": "1000000000000"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var written atomic.Int64
			ended := make(chan struct{})
			p := newProxy(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				defer close(ended)
				if length != "" {
					w.Header().Set("Content-Length", length)
				}
				for {
					n, err := w.Write(make([]byte, 32<<10))
					if written.Add(int64(n)); err != nil {
						return
					}
				}
			})).URL, nil)
			c := dial(t, behind(t, p, p, 200*time.Millisecond))
			say(t, c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			<-ended
			// Four sockets' buffers, of up to 6 MiB each.
			if n := written.Load(); n > 32<<20 {
				t.Errorf("%d bytes were taken of the app", n)
			}
		})
	}
}
