package front_test

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/enclave/front"
	"github.com/corridor-enclave/corridor/revproxy"
)

// fastFront is a front's configuration with a fast lane to an app.
func fastFront(t *testing.T, app http.HandlerFunc) front.Config {
	t.Helper()
	s := httptest.NewServer(app)
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	p, err := revproxy.New(revproxy.Config{Apps: []*url.URL{u}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return front.Config{Proxy: p, Fast: p}
}

// TestFastLaneKeepsReservedPaths: however a path of the enclave's is written, the
// lane leaves it to the front, which says the same as without the lane.
func TestFastLaneKeepsReservedPaths(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("TLS is %t", secure), func(t *testing.T) {
			t.Parallel()
			took := make(chan struct{}, 100)
			cfg := fastFront(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "app") })
			cfg.Took = func(time.Duration) { took <- struct{}{} }
			if secure {
				cfg.Certificates = newCertificates(t)
			}
			base, client := overTCP(t, cfg)
			client.Transport.(*http.Transport).ForceAttemptHTTP2 = false
			for _, tt := range []struct {
				target    string
				app, fast bool
			}{
				{"/", true, true}, {"/a?/enclave", true, true}, {"/a?%", true, true}, {"/enclaves", true, true}, {"/a/enclave", true, true}, {"/a%20b", true, true},
				{"/enclave", false, false}, {"/enclave/", false, false}, {"//enclave/x", false, false}, {"/a/../enclave/x", false, false},
				{"/%65nclave", false, false}, {"/%2fenclave", false, false}, {"/.%2e/enclave?x", false, false},
			} {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base, nil)
				if err != nil {
					t.Fatal(err)
				}
				req.URL.Opaque, req.Close = tt.target, true
				if strings.HasPrefix(tt.target, "//") {
					req.URL.Opaque = "" // or the client takes it for a host
					req.URL.Path = tt.target
				}
				resp, err := client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if tt.fast {
					<-took // a moment after the answer
				}
				if (string(body) == "app") != tt.app || len(took) > 0 {
					t.Errorf("%s: %s %q; through the lane %t", tt.target, resp.Status, body, tt.fast || len(took) > 0)
				}
			}
		})
	}
}

// TestFastLaneWaitsForTheApp: while the app is not ready, the front answers, and
// ends the connection, so that the client's next may be the lane's.
func TestFastLaneWaitsForTheApp(t *testing.T) {
	t.Parallel()
	cfg := fastFront(t, func(http.ResponseWriter, *http.Request) { t.Error("the app was asked") })
	cfg.App = fakeApp{unready: true}
	base, client := overTCP(t, cfg)
	resp, _ := fetch(t, client, http.MethodGet, base, nil)
	if resp.StatusCode != http.StatusServiceUnavailable || !resp.Close || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%s, close %t", resp.Status, resp.Close)
	}
}

// TestFastLaneDrains: both an answer of the lane's, and one that it hands on while
// the front drains, arrive whole.
func TestFastLaneDrains(t *testing.T) {
	t.Parallel()
	arrived, answer := make(chan struct{}, 2), make(chan struct{})
	cfg := fastFront(t, func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-answer
		if r.URL.Path == "/hints" {
			w.WriteHeader(http.StatusEarlyHints) // not for the lane
		}
		_, _ = io.WriteString(w, "whole answer")
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Listeners = []net.Listener{l}
	stop := run(t, cfg)
	var clients []net.Conn
	for _, target := range []string{"/", "/hints"} {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		say(t, c, "GET "+target+" HTTP/1.1\r\nHost: x\r\n\r\n")
		clients = append(clients, c)
		<-arrived
	}
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	for err == nil { // until it accepts no more, it does not drain
		var c net.Conn
		if c, err = net.Dial("tcp", l.Addr().String()); err == nil {
			c.Close()
		}
	}
	close(answer)
	for i, c := range clients {
		r := bufio.NewReader(c)
		resp, err := http.ReadResponse(r, nil)
		for err == nil && resp.StatusCode == http.StatusEarlyHints {
			resp, err = http.ReadResponse(r, nil)
		}
		if err != nil {
			t.Fatalf("client %d: %v", i, err)
		}
		if body, err := io.ReadAll(resp.Body); string(body) != "whole answer" || err != nil || !resp.Close {
			t.Errorf("client %d: %q, %v, close %t", i, body, err, resp.Close)
		}
		c.Close()
	}
	if err := <-stopped; err != nil {
		t.Errorf("Run = %v", err)
	}
}

// TestFastLaneDrainHasAnEnd: an answer that the lane has handed on, and that its
// client does not take, is cut like others.
func TestFastLaneDrainHasAnEnd(t *testing.T) {
	t.Parallel()
	cfg := fastFront(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusEarlyHints) // not for the lane
		for b := make([]byte, 64<<10); ; {
			if _, err := w.Write(b); err != nil {
				return
			}
		}
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Listeners, cfg.DrainTimeout = []net.Listener{l}, 200*time.Millisecond
	stop := run(t, cfg)
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	say(t, c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if _, err := io.ReadFull(c, make([]byte, 4<<10)); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	select {
	case err := <-stopped:
		if err == nil {
			t.Error("nothing was cut")
		}
	case <-time.After(20 * time.Second): // below what a write may take
		t.Error("it waits for the client")
	}
}
