package revproxy_test

import (
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

// severalApps puts a proxy in front of apps by their URLs.
func severalApps(t *testing.T, change func(*revproxy.Config), apps ...string) *revproxy.Proxy {
	t.Helper()
	return newProxy(t, apps[0], func(c *revproxy.Config) {
		c.Apps = nil
		for _, a := range apps {
			u, err := url.Parse(a)
			if err != nil {
				t.Fatal(err)
			}
			c.Apps = append(c.Apps, u)
		}
		if change != nil {
			change(c)
		}
	})
}

// refusing is the URL of an app that is not there, at a port that nobody else gets
// meanwhile: it is the near end of a connection.
func refusing(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(s.Close)
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return "http://" + c.LocalAddr().String()
}

func named(t *testing.T, name string) string {
	t.Helper()
	return serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		content, _ := io.ReadAll(r.Body)
		_, _ = io.WriteString(w, name+string(content))
	})).URL
}

func TestRequestsAreSpread(t *testing.T) {
	t.Parallel()
	arrived, answer := make(chan string, 10), make(chan struct{})
	holding := func(name string) string {
		return serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			arrived <- name
			<-answer
		})).URL
	}
	p := severalApps(t, nil, holding("a"), holding("b"), holding("c"))
	c := &crowd{Proxy: p}
	for range 2 {
		seen := map[string]bool{}
		for range 3 {
			c.ask(t.Context(), someone)
			seen[<-arrived] = true
		}
		if len(seen) != 3 {
			t.Errorf("three requests at a time are with %v", seen)
		}
	}
	close(answer)
	c.under.Wait()
}

// What could not be sent may go elsewhere, whatever its method, with its body.
func TestAppsThatAreNotThere(t *testing.T) {
	t.Parallel()
	for _, netHTTP := range []bool{false, true} {
		p := severalApps(t, func(c *revproxy.Config) { c.NetHTTP = netHTTP }, refusing(t), named(t, "here "), refusing(t))
		front := serve(t, p)
		for range 6 {
			res, err := front.Client().Post(front.URL, "", strings.NewReader("content"))
			if err != nil {
				t.Fatal(err)
			}
			if got := body(t, res); got != "here content" {
				t.Errorf("%s, %q", res.Status, got)
			}
			res.Body.Close()
		}
		if got := p.Counts(); got.AppFailures != 0 {
			t.Errorf("%+v", got)
		}
	}
	p := severalApps(t, nil, refusing(t), refusing(t))
	w := httptest.NewRecorder()
	if p.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)); w.Code != http.StatusBadGateway {
		t.Errorf("nobody is there: %d", w.Code)
	}
}

// What was sent to one app is not sent to another: it may be what killed the first.
func TestSentIsSent(t *testing.T) {
	t.Parallel()
	dying := func() string { return rawApp(t, func(string, net.Conn) {}) }
	p := severalApps(t, nil, dying(), dying())
	w := httptest.NewRecorder()
	if p.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)); w.Code != http.StatusBadGateway {
		t.Errorf("%d", w.Code)
	}
	if n := p.Counts().Causes[revproxy.ConnectionTerminated]; n != 1 {
		t.Errorf("%d terminated", n)
	}
}

// An app that starts anew is waited for.
func TestForwardTimeout(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	p := severalApps(t, func(c *revproxy.Config) { c.ForwardTimeout = patience }, "http://"+address)
	c := &crowd{Proxy: p}
	answered := c.ask(t.Context(), someone)
	l, err = net.Listen("tcp", address)
	if err != nil {
		t.Skipf("needs the port again (remedy: try again): %v", err)
	}
	app := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "back")
	})}}
	app.Start()
	t.Cleanup(app.Close)
	if w := <-answered; w.Code != http.StatusOK || w.Body.String() != "back" {
		t.Errorf("%d, %q", w.Code, w.Body)
	}
}

func TestOneBadAppIsRefused(t *testing.T) {
	t.Parallel()
	good, bad := &url.URL{Scheme: "http", Host: "a"}, &url.URL{Scheme: "ftp", Host: "a"}
	if _, err := revproxy.New(revproxy.Config{Apps: []*url.URL{good, bad}, Log: slog.New(slog.DiscardHandler)}); err == nil {
		t.Error("an app is reached by ftp")
	}
}
