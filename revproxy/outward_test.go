package revproxy_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/corridor-enclave/corridor/revproxy"
)

// TestOutward: the way out says no more about the app than the app does.
func TestOutward(t *testing.T) {
	t.Parallel()
	outside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, want := range map[string]string{
			"X-Forwarded-For": "203.0.113.7", "X-Request-Id": "the app's", "X-Forwarded-Proto": "", "X-Forwarded-Host": "", "Forwarded": "", "X-Real-Ip": "", "X-Hop": "",
		} {
			if got := r.Header.Get(name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		if r.Host != "api.example.com" || !strings.HasPrefix(r.Header.Get("Via"), "1.1 corridor (") {
			t.Errorf("Host %q, Via %q", r.Host, r.Header.Get("Via"))
		}
	}))
	t.Cleanup(outside.Close)
	reachable := true
	p, err := revproxy.New(revproxy.Config{
		Apps: []*url.URL{{Scheme: "http", Host: "api.example.com"}}, Outward: true, Log: slog.New(slog.DiscardHandler),
		Dial: func(ctx context.Context) (net.Conn, error) {
			if !reachable {
				return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("not today")}
			}
			return new(net.Dialer).DialContext(ctx, "tcp", outside.Listener.Addr().String())
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	ask := func() (int, string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.Host = "api.example.com"
		for name, value := range map[string]string{"X-Forwarded-For": "203.0.113.7", "X-Request-Id": "the app's", "Connection": "X-Hop", "X-Hop": "1"} {
			r.Header.Set(name, value)
		}
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		body, _ := io.ReadAll(w.Body)
		return w.Code, string(body)
	}
	if status, body := ask(); status != http.StatusOK {
		t.Errorf("%d %s", status, body)
	}
	p.Close()
	reachable = false
	if status, body := ask(); status != http.StatusBadGateway || !strings.Contains(body, "the destination cannot be reached") {
		t.Errorf("%d %s", status, body)
	}
}
