package revproxy_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/revproxy"
)

// lookAfter runs a proxy's Run until the test ends.
func lookAfter(t *testing.T, p *revproxy.Proxy) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestHealthPathIsATarget(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"health", "/a b", "/\r\nX: y", "/\u00e9"} {
		if _, err := revproxy.New(config(t, "http://app", func(c *revproxy.Config) { c.HealthPath = path })); err == nil {
			t.Errorf("%q is taken", path)
		}
	}
}

// Connections are there before anybody asks, and again after the app has ended
// them.
func TestConnectionsAreKeptReady(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := newProxy(t, "http://"+l.Addr().String(), func(c *revproxy.Config) { c.MinConns, c.HealthInterval = 3, 5*time.Millisecond })
	lookAfter(t, p)
	for round := range 2 {
		var conns []net.Conn
		for range 3 {
			c, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, c)
		}
		if round == 1 {
			defer func() {
				for _, c := range conns {
					c.Close()
				}
			}()
			break
		}
		for _, c := range conns {
			c.Close()
		}
	}
}

// An app that says that it is ill gets nothing.
func TestIllAppsAreSpared(t *testing.T) {
	t.Parallel()
	probes := make(chan string, 100)
	app := func(name string, status int) string {
		return serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/health" {
				w.WriteHeader(status)
				select {
				case probes <- name:
				default:
				}
				return
			}
			_, _ = io.WriteString(w, name)
		})).URL
	}
	p := severalApps(t, func(c *revproxy.Config) { c.HealthPath, c.HealthInterval = "/health?deep=1", 5*time.Millisecond },
		app("well", http.StatusNotFound), app("ill", http.StatusInternalServerError))
	lookAfter(t, p)
	for n := 0; n < 3; { // the third comes when the second has been judged
		if <-probes == "ill" {
			n++
		}
	}
	front := serve(t, p)
	for range 6 {
		res, err := front.Client().Get(front.URL)
		if err != nil {
			t.Fatal(err)
		}
		if got := body(t, res); got != "well" {
			t.Errorf("answered by %q", got)
		}
		res.Body.Close()
	}
}
