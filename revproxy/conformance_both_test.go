package revproxy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/revproxy"
)

// servesBoth puts a proxy behind a server for clients of one protocol: HTTP/1.1 through
// the fast lane, HTTP/2 with TLS.
func servesBoth(t *testing.T, p *revproxy.Proxy, h2 bool) *httptest.Server {
	t.Helper()
	var s *httptest.Server
	if h2 {
		s = serveTLS(t, p, true)
	} else {
		s = serve(t, p)
	}
	s.Client().Transport.(*http.Transport).DisableCompression = true // it would hide what was done to the content
	return s
}

// TestAnswersAreNotChanged: what an app of HTTP/1.1 answers, and what clients of either
// protocol get.
func TestAnswersAreNotChanged(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, method, answer string
		status               int
		fields               map[string]string // "" is none
		body                 string
	}{
		{"HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nEtag: \"x\"\r\n\r\n", 200, map[string]string{"Content-Length": "9", "Etag": `"x"`}, ""},
		{"no content", "GET", "HTTP/1.1 204 No Content\r\nA: b\r\n\r\n", 204, map[string]string{"Content-Length": "", "A": "b"}, ""},
		{"no content with a body", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc", 204, map[string]string{"Content-Length": ""}, ""},
		{"not modified", "GET", "HTTP/1.1 304 Not Modified\r\nEtag: \"x\"\r\n\r\n", 304, map[string]string{"Etag": `"x"`}, ""},
		{"fields of the connection", "GET", "HTTP/1.1 200 OK\r\nConnection: A\r\nA: b\r\nKeep-Alive: c\r\nProxy-Authenticate: d\r\nB: e\r\nContent-Length: 2\r\n\r\nok",
			200, map[string]string{"A": "", "Keep-Alive": "", "Proxy-Authenticate": "", "B": "e"}, "ok"},
		{"a compressed body", "GET", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nEtag: \"x\"\r\nContent-Length: 8\r\n\r\nnot gzip",
			200, map[string]string{"Content-Encoding": "gzip", "Etag": `"x"`, "Content-Length": "8", "Vary": ""}, "not gzip"},
		{"a range", "GET", "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-3/10\r\nAccept-Ranges: bytes\r\nContent-Length: 2\r\n\r\ncd",
			206, map[string]string{"Content-Range": "bytes 2-3/10", "Accept-Ranges": "bytes"}, "cd"},
		{"a digest", "GET", "HTTP/1.1 200 OK\r\nContent-Digest: sha-256=:x:\r\nContent-Length: 0\r\n\r\n", 200, map[string]string{"Content-Digest": "sha-256=:x:"}, ""},
		{"too early", "GET", "HTTP/1.1 425 Too Early\r\nContent-Length: 0\r\n\r\n", 425, map[string]string{"Proxy-Status": ""}, ""},
		{"an error of the app's own", "GET", "HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n", 503, map[string]string{"Retry-After": "7", "Proxy-Status": ""}, ""},
		{"a date of its own", "GET", "HTTP/1.1 200 OK\r\nDate: then\r\nContent-Length: 0\r\n\r\n", 200, map[string]string{"Date": "then"}, ""},
		{"a second answer in the first", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 0\r\n\r\n", 200, map[string]string{"A": ""}, "ok"},
		{"a field with a line break in it", "GET", "HTTP/1.1 200 OK\r\nA: b\rSet-Cookie: c\r\nContent-Length: 0\r\n\r\n", 502, map[string]string{"A": "", "Set-Cookie": "", "Proxy-Status": "corridor; error=http_protocol_error"}, "*"},
	}
	bothProtocols(t, func(t *testing.T, h2 bool) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				app := rawApp(t, func(_ string, c net.Conn) { _, _ = io.WriteString(c, tt.answer) })
				front := servesBoth(t, newProxy(t, app, nil), h2)
				for range 2 { // the second must not get what the first left
					res := request(t, front, tt.method, "")
					content := body(t, res)
					if res.StatusCode != tt.status || tt.body != "*" && content != tt.body || res.Header.Get("Date") == "" {
						t.Errorf("%s, %q, %v", res.Status, content, res.Header)
					}
					for name, want := range tt.fields {
						if got := res.Header.Get(name); got != want {
							t.Errorf("%s is %q, want %q", name, got, want)
						}
					}
				}
			})
		}
	})
}

// request sends a request to a server, with a body of a declared length.
func request(t *testing.T, s *httptest.Server, method, content string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL, strings.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return res
}

// TestStatusCodes: what clients of either protocol are answered when the way to the app
// fails, and what of the proxy's is full.
func TestStatusCodes(t *testing.T) {
	t.Parallel()
	dialing := func(err error) func(*revproxy.Config) {
		return func(c *revproxy.Config) {
			c.Dial = func(context.Context) (net.Conn, error) {
				return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
			}
		}
	}
	says := func(answer string) func(*testing.T) string {
		return func(t *testing.T) string {
			return rawApp(t, func(_ string, c net.Conn) { _, _ = io.WriteString(c, answer) })
		}
	}
	silent := func(t *testing.T) string {
		return rawApp(t, func(_ string, c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	}
	tests := []struct {
		name   string
		app    func(*testing.T) string
		change func(*revproxy.Config)
		status int
		cause  revproxy.Cause
	}{
		{"nothing listens", refusing, nil, 502, revproxy.ConnectionRefused},
		{"no way there", refusing, dialing(errors.New("no route")), 502, revproxy.Unavailable},
		{"not accepted in time", refusing, dialing(os.ErrDeadlineExceeded), 504, revproxy.ConnectionTimeout},
		{"no answer in time", silent, func(c *revproxy.Config) { c.ResponseHeaderTimeout = 20 * time.Millisecond }, 504, revproxy.ResponseTimeout},
		{"not done in time", silent, func(c *revproxy.Config) { c.RequestTimeout = 20 * time.Millisecond }, 504, revproxy.ResponseTimeout},
		{"ends without an answer", says(""), nil, 502, revproxy.ConnectionTerminated},
		{"ends within the head", says("HTTP/1.1 200 OK\r\nA:"), nil, 502, revproxy.ConnectionTerminated},
		{"no HTTP", says("220 mail\r\n\r\n"), nil, 502, revproxy.ProtocolError},
		{"two lengths", says("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"), nil, 502, revproxy.ProtocolError},
		{"a head too large", says("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 40<<10) + "\r\n\r\n"), func(c *revproxy.Config) { c.MaxResponseHeaderBytes = 20 << 10 }, 502, revproxy.ResponseHeader},
		{"an unasked switch", says("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"), nil, 502, revproxy.UpgradeFailed},
		{"a host that is not served", refusing, func(c *revproxy.Config) { c.Hosts = []string{"other"} }, 421, revproxy.RequestDenied},
	}
	bothProtocols(t, func(t *testing.T, h2 bool) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				p := newProxy(t, tt.app(t), tt.change)
				res := request(t, servesBoth(t, p, h2), http.MethodGet, "")
				if got := res.Header.Get("Proxy-Status"); res.StatusCode != tt.status || got != "corridor; error="+tt.cause.String() {
					t.Errorf("%s, Proxy-Status %q; want %d and %s", res.Status, got, tt.status, tt.cause)
				}
				if n := p.Counts(); n.Causes[tt.cause] != 1 || n.AppFailures+n.ClientFaults != 1 || (n.AppFailures == 1) != (tt.status >= 500) {
					t.Errorf("counted as %+v", n)
				}
			})
		}
	})
}

// TestRefusalsForWantOfRoom: clients of either protocol are told when to come again, and
// are not told to go elsewhere with their connection.
func TestRefusalsForWantOfRoom(t *testing.T) {
	t.Parallel()
	bothProtocols(t, func(t *testing.T, h2 bool) {
		for status, change := range map[int]func(*revproxy.Config){
			429: func(c *revproxy.Config) { c.MaxPerClient = 1 },
			503: func(c *revproxy.Config) { c.MaxConcurrent, c.QueueTimeout = 1, time.Millisecond },
		} {
			app := newCrowd(t, change)
			front := servesBoth(t, app.Proxy, h2)
			first := make(chan *http.Response, 1)
			go func() {
				res, err := front.Client().Get(front.URL)
				if err != nil {
					t.Error(err)
					res = &http.Response{Body: http.NoBody}
				}
				res.Body.Close()
				first <- res
			}()
			<-app.arrived
			for range 2 {
				if res := request(t, front, http.MethodGet, ""); res.StatusCode != status || res.Header.Get("Retry-After") != "1" || res.Close {
					t.Errorf("%s, %v, close %t; want %d", res.Status, res.Header, res.Close, status)
				}
			}
			app.answer <- struct{}{}
			if res := <-first; res.StatusCode != http.StatusOK {
				t.Errorf("the first: %s", res.Status)
			}
		}
	})
}

// TestUnreadBodyEndsTheConnection: what an app left unread of a body is never taken for
// the client's next request, nor waited for without end.
func TestUnreadBodyEndsTheConnection(t *testing.T) {
	t.Parallel()
	app := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hidden" {
			t.Error("the app saw a request that was a body")
		}
		w.WriteHeader(http.StatusForbidden)
	}))
	const hidden = "GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
	for name, begin := range map[string]string{
		"in the fast lane":   "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n",
		"outside":            "POST / HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nContent-Length: %d\r\n\r\n",
		"with an expectance": "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n",
	} {
		for missing := range 2 { // with and without the body's last byte
			t.Run(fmt.Sprintf("%s, %d bytes missing", name, missing), func(t *testing.T) {
				t.Parallel()
				front := httptest.NewUnstartedServer(newProxy(t, app.URL, nil))
				front.Config.ReadTimeout = 200 * time.Millisecond // else a body's rest is waited for
				withLane(t, front)
				front.Start()
				t.Cleanup(front.Close)
				c := dial(t, front)
				if _, err := fmt.Fprintf(c, begin+hidden, len(hidden)+missing); err != nil {
					t.Fatal(err)
				}
				first := readAnswer(t, c)
				_ = c.(*net.TCPConn).CloseWrite()
				rest, err := io.ReadAll(c)
				if isTimeout(err) || strings.Contains(first+string(rest), "200 OK") {
					t.Errorf("%q, then %q, %v", first, rest, err)
				}
			})
		}
	}
}

// TestHalfCloseIsAnEnd: a client that closes its half of the connection before it has the
// answer is taken for one that goes; see README.md.
func TestHalfCloseIsAnEnd(t *testing.T) {
	t.Parallel()
	for name, head := range map[string]string{
		"in the fast lane": "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"outside":          "GET / HTTP/1.1\r\nHost: x\r\nTE: trailers\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app := newWaitingApp(t, false)
			p := newProxy(t, app.url, nil)
			c := dial(t, serve(t, p))
			if _, err := io.WriteString(c, head); err != nil {
				t.Fatal(err)
			}
			<-app.reached
			_ = c.(*net.TCPConn).CloseWrite()
			<-app.canceled
			all, err := io.ReadAll(c)
			if err != nil || len(all) > 0 && !strings.HasPrefix(string(all), "HTTP/1.1 499 ") {
				t.Errorf("%q, %v", all, err)
			}
			if n := p.Counts(); n.ClientGone != 1 || n.AppFailures != 0 {
				t.Errorf("counted as %+v", n)
			}
		})
	}
}

// TestEventsOverHTTP2 is TestEventsAreFlushedAtOnce for the other protocol.
func TestEventsOverHTTP2(t *testing.T) {
	t.Parallel()
	next := make(chan struct{})
	app := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		eachEvent(w, next)
	}))
	front := serveTLS(t, newProxy(t, app.URL, nil), true)
	res, err := front.Client().Get(front.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	hearEvents(t, res.Body, next)
}
