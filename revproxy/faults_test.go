package revproxy_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/revproxy"
)

func TestAppFailures(t *testing.T) {
	t.Parallel()
	says := func(s string) string { return rawApp(t, func(_ string, c net.Conn) { _, _ = io.WriteString(c, s) }) }
	hanging := rawApp(t, func(_ string, c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	tests := []struct {
		name, app string
		status    int
		token     string
	}{
		{"nothing listens", refusing(t), 502, "connection_refused"},
		{"no socket", "unix:" + filepath.Join(t.TempDir(), "none"), 502, "connection_refused"},
		{"closes without an answer", says(""), 502, "connection_terminated"},
		{"resets", rawApp(t, func(_ string, c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) }), 502, "connection_terminated"},
		{"speaks nonsense", says("SSH-2.0-x\r\n\r\n"), 502, "http_protocol_error"},
		{"head too large", says("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 100<<10) + "\r\n\r\n"), 502, "http_response_header_section_size"},
		{"does not answer", hanging, 504, "http_response_timeout"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newProxy(t, tt.app, func(c *revproxy.Config) {
				c.MaxResponseHeaderBytes = 64 << 10
				if tt.app == hanging {
					c.ResponseHeaderTimeout = 20 * time.Millisecond
				}
			})
			front := serve(t, p)
			res, err := front.Client().Get(front.URL)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if got := res.Header.Get("Proxy-Status"); res.StatusCode != tt.status || got != "corridor; error="+tt.token {
				t.Errorf("%d, Proxy-Status %q; want %d and %s", res.StatusCode, got, tt.status, tt.token)
			}
			if got := p.Counts(); got.AppFailures != 1 || got.ClientFaults+got.ClientGone != 0 {
				t.Errorf("counted as %+v", got)
			}
		})
	}
}

func TestClientFaults(t *testing.T) {
	t.Parallel()
	const limit = 1000
	app := rawApp(t, func(_ string, c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	chunked := "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
	tests := []struct {
		name, request string
		halfClose     bool
		status        int
	}{
		{"malformed chunk", chunked + "zz\r\n", false, 400},
		{"body cut short", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc", true, 400},
		{"declared too large", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n", false, 413},
		{"turns out too large", chunked + "3e9\r\n" + strings.Repeat("x", limit+1) + "\r\n", false, 413},
		{"too slow", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc", false, 408},
		{"TRACE", "TRACE / HTTP/1.1\r\nHost: x\r\n\r\n", false, 405},
		{"CONNECT", "CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n", false, 405},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newProxy(t, app, func(c *revproxy.Config) { c.MaxBodyBytes = limit })
			front := httptest.NewUnstartedServer(p)
			if tt.status == http.StatusRequestTimeout {
				front.Config.ReadTimeout = 50 * time.Millisecond
			}
			front.Start()
			t.Cleanup(front.Close)
			c := dial(t, front)
			if tt.halfClose {
				if _, err := io.WriteString(c, tt.request); err != nil {
					t.Fatal(err)
				}
				tt.request = ""
				_ = c.(*net.TCPConn).CloseWrite()
			}
			res := speak(t, c, tt.request)
			if res.StatusCode != tt.status || !strings.HasPrefix(res.Header.Get("Proxy-Status"), "corridor; error=http_request_") {
				t.Errorf("%s, Proxy-Status %q; want %d", res.Status, res.Header.Get("Proxy-Status"), tt.status)
			}
			if !res.Close {
				t.Error("the connection goes on behind a request without an end")
			}
			if got := p.Counts(); got.ClientFaults != 1 || got.AppFailures != 0 {
				t.Errorf("counted as %+v", got)
			}
		})
	}
}

func TestClientGoneIsNotAnAppFailure(t *testing.T) {
	t.Parallel()
	reached, canceled := make(chan struct{}), make(chan struct{})
	app := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(reached)
		<-r.Context().Done()
		close(canceled)
	}))
	p := newProxy(t, app.URL, nil)
	done := make(chan struct{})
	front := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.ServeHTTP(w, r)
		close(done)
	}))
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, front.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() { <-reached; cancel() }()
	if res, err := front.Client().Do(req); err == nil {
		res.Body.Close()
		t.Fatal("the request succeeded")
	}
	<-canceled // the app is told
	<-done
	if got := p.Counts(); got.ClientGone != 1 || got.AppFailures != 0 || got.ClientFaults != 0 {
		t.Errorf("counted as %+v", got)
	}
}
