package upstream_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/revproxy/upstream"
)

func TestConnectionsAreKeptOnlyIfClean(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, method, answer string
		kept                 bool
	}{
		{"length", "GET", ok, true},
		{"chunks", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", true},
		{"no content", "GET", "HTTP/1.1 204 No Content\r\n\r\n", true},
		{"HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", true},
		{"HTTP/1.0 that keeps", "GET", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", true},
		{"the app closes", "GET", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", false},
		{"HTTP/1.0", "GET", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", false},
		{"more than the answer", "GET", ok + "HTTP/1.1 200 OK\r\n", false},
		{"a body where none may be", "HEAD", ok, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			app := newApp(t, says(tt.answer))
			tr := app.transport(t, nil)
			for range 3 {
				ask(t, tr, request(t, tt.method, ""))
			}
			want := int64(3)
			if tt.kept {
				want = 1
			}
			if got := app.conns.Load(); got != want {
				t.Errorf("%d connections for 3 requests; want %d", got, want)
			}
		})
	}
}

func TestUnreadAnswerIsNotKept(t *testing.T) {
	t.Parallel()
	app := newApp(t, says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
	tr := app.transport(t, nil)
	for range 2 {
		res, err := tr.RoundTrip(request(t, http.MethodGet, ""))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
	}
	if got := app.conns.Load(); got != 2 {
		t.Errorf("%d connections; want 2", got)
	}
}

// What an app says on an idle connection is an answer to nothing, and must not
// become the answer to the next request.
func TestWordsOutOfTurn(t *testing.T) {
	t.Parallel()
	said := make(chan struct{}, 2)
	app := newApp(t, func(c net.Conn, r *bufio.Reader) {
		for {
			if _, _, err := readRequest(r); err != nil {
				return
			}
			_, _ = io.WriteString(c, ok)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
			said <- struct{}{}
		}
	})
	tr := app.transport(t, nil)
	for range 2 {
		if _, content := ask(t, tr, request(t, http.MethodGet, "")); content != "ok" {
			t.Errorf("answered with %q", content)
		}
		<-said
	}
}

// An app may hang up on a kept connection just when a request comes: what may
// be repeated is.
func TestStaleConnections(t *testing.T) {
	t.Parallel()
	for method, want := range map[string]int64{http.MethodGet: 2, http.MethodDelete: 2, http.MethodPost: 1, "PROPFIND": 1} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			var conns atomic.Int64
			app := newApp(t, func(c net.Conn, r *bufio.Reader) {
				first := conns.Add(1) == 1
				for n := 0; ; n++ {
					if _, _, err := readRequest(r); err != nil || (first && n == 1) {
						return // having read the second request: no look beforehand can tell
					}
					_, _ = io.WriteString(c, ok)
				}
			})
			tr := app.transport(t, nil)
			ask(t, tr, request(t, method, ""))
			res, err := tr.RoundTrip(request(t, method, ""))
			if err == nil {
				res.Body.Close()
			}
			if got := conns.Load(); got != want || (err == nil) != (want == 2) {
				t.Errorf("%v after %d connections; want %d", err, got, want)
			}
		})
	}
}

func TestIdleConnectionsEnd(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	app := newApp(t, func(c net.Conn, r *bufio.Reader) {
		says(ok)(c, r)
		ended <- struct{}{}
	})
	tr := app.transport(t, func(c *upstream.Config) { c.IdleTimeout = 10 * time.Millisecond })
	ask(t, tr, request(t, http.MethodGet, ""))
	<-ended // by its own timer, without another request
	tr = app.transport(t, func(c *upstream.Config) { c.MaxIdle = 0 })
	ask(t, tr, request(t, http.MethodGet, ""))
	<-ended
}
