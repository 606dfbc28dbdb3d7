package revproxy_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/corridor-enclave/corridor/revproxy"
)

// Requests that an app does not answer are sent again only where that is allowed,
// and no more often than that.
func TestRetries(t *testing.T) {
	t.Parallel()
	rules := []revproxy.Rule{{Method: "GET", Path: "/pay/"}, {Path: "/any"}}
	tests := []struct {
		method, target, body string
		retries, want        int
	}{
		{"GET", "/", "", 0, 1}, // once, on a connection that had been used
		{"GET", "/", "", -1, 1},
		{"GET", "/", "", 3, 3},
		{"HEAD", "/", "", 3, 3},
		{"PUT", "/", "", 3, 3},
		{"PUT", "/", "content", 3, 1},
		{"POST", "/", "", 3, 1},
		{"PATCH", "/", "", 3, 1},
		{"GET", "/pay/bill", "", 3, 1},
		{"GET", "/%70ay/bill?x", "", 3, 1},
		{"HEAD", "/pay/bill", "", 3, 3},
		{"GET", "/?/pay/", "", 3, 3},
		{"DELETE", "/anything", "", 3, 1},
	}
	for _, test := range tests {
		t.Run(test.method+" "+test.target, func(t *testing.T) {
			t.Parallel()
			var sent atomic.Int32
			silent := func() string { return rawApp(t, func(string, net.Conn) { sent.Add(1) }) }
			front := serve(t, severalApps(t, func(c *revproxy.Config) {
				c.Retries, c.NonIdempotent, c.ForwardTimeout = test.retries, rules, patience
			}, silent(), silent()))
			req, err := http.NewRequestWithContext(t.Context(), test.method, front.URL+test.target, strings.NewReader(test.body))
			if err != nil {
				t.Fatal(err)
			}
			res, err := front.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if n := int(sent.Load()); n != test.want || res.StatusCode != http.StatusBadGateway {
				t.Errorf("sent %d times, want %d; %s", n, test.want, res.Status)
			}
		})
	}
}

// The first time is on a connection that had been used before.
func TestRetryOfAUsedConnection(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		target  string
		retries int
		want    string // of the second request
	}{{"/", 0, "once more"}, {"/pay", 0, ""}, {"/", -1, ""}} {
		var conns atomic.Int32
		app := rawApp(t, func(_ string, c net.Conn) {
			answer := "first"
			if conns.Add(1) > 1 {
				answer = "once more"
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: "+map[bool]string{true: "5", false: "9"}[answer == "first"]+"\r\n\r\n"+answer)
			_, _ = readHead(bufio.NewReader(c)) // and then it ends
		})
		front := serve(t, newProxy(t, app, func(c *revproxy.Config) {
			c.Retries, c.NonIdempotent = test.retries, []revproxy.Rule{{Path: "/pay"}}
		}))
		for i, want := range []string{"first", test.want} {
			res, err := front.Client().Get(front.URL + test.target)
			if err != nil {
				t.Fatal(err)
			}
			if got := body(t, res); (want != "" || i == 0) && got != want || want == "" && res.StatusCode != http.StatusBadGateway {
				t.Errorf("%s: %s, %q, want %q", test.target, res.Status, got, want)
			}
			res.Body.Close()
		}
	}
}

// A full app is left alone, and so are all if all are full.
func TestMaxPerApp(t *testing.T) {
	t.Parallel()
	arrived, answer := make(chan string, 10), make(chan struct{})
	holding := func(name string) string {
		return serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			arrived <- name
			<-answer
		})).URL
	}
	p := severalApps(t, func(c *revproxy.Config) { c.MaxPerApp = 1 }, holding("a"), holding("b"))
	c := &crowd{Proxy: p}
	c.ask(t.Context(), someone)
	c.ask(t.Context(), someone)
	if one, other := <-arrived, <-arrived; one == other {
		t.Error("both are with", one)
	}
	if w := <-c.ask(t.Context(), someone); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("the third: %d, %v", w.Code, w.Header())
	}
	close(answer)
	c.under.Wait()
	if w := <-c.ask(t.Context(), someone); w.Code != http.StatusOK {
		t.Errorf("when there is room again: %d", w.Code)
	}
}

// A mortal is an app that ends when it is asked for /kill, with its connections,
// and that can be started again at the same address.
type mortal struct {
	t       *testing.T
	address string
	server  *httptest.Server
}

func (m *mortal) start() {
	m.t.Helper()
	if m.address == "" {
		m.address = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", m.address)
	if err != nil {
		m.t.Fatal(err)
	}
	m.address = l.Addr().String()
	s := &httptest.Server{Listener: l, Config: &http.Server{}}
	s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/kill" {
			_ = s.Listener.Close()
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, "alive")
	})
	s.Start()
	m.server = s
	m.t.Cleanup(s.Close)
}

func status(t *testing.T, s *httptest.Server, method, target string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL+target, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	_ = body(t, res)
	return res.StatusCode
}

// What was with the app at two of its deaths is kept away; what merely happened
// to be there once is not, and neither are others.
func TestQuarantine(t *testing.T) {
	t.Parallel()
	app := &mortal{t: t}
	app.start()
	p := newProxy(t, "http://"+app.address, nil)
	front := serve(t, p)
	for death := range 2 {
		if got := status(t, front, "GET", "/"); got != http.StatusOK {
			t.Fatalf("before death %d: %d", death+1, got)
		}
		if got := status(t, front, "POST", "/kill"); got != http.StatusBadGateway {
			t.Fatalf("death %d: %d", death+1, got)
		}
		app.server.Close()
		if got := status(t, front, "GET", "/"); got != http.StatusBadGateway { // now the proxy knows
			t.Fatalf("after death %d: %d", death+1, got)
		}
		app.start()
	}
	if got := status(t, front, "GET", "/"); got != http.StatusOK {
		t.Errorf("another request after two deaths: %d", got)
	}
	if got := status(t, front, "POST", "/kill"); got != http.StatusServiceUnavailable {
		t.Errorf("the third time: %d", got)
	}
	if got := status(t, front, "GET", "/"); got != http.StatusOK {
		t.Errorf("the app has not lived on: %d", got)
	}
	if n := p.Counts().Causes[revproxy.RequestDenied]; n != 1 {
		t.Errorf("%d denied", n)
	}
}
