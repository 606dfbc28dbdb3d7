package egressproxy_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/corridor-enclave/corridor/enclave/egress"
	"github.com/corridor-enclave/corridor/enclave/egressproxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// An origin is a server outside. Its certificate is for example.com and for all
// names below it.
type origin struct {
	*httptest.Server
	handshakes atomic.Int64
}

func newOrigin(t *testing.T, h http.HandlerFunc) *origin {
	t.Helper()
	o := &origin{Server: httptest.NewUnstartedServer(h)}
	o.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		o.handshakes.Add(1)
		return nil, nil
	}}
	o.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	o.StartTLS()
	t.Cleanup(o.Close)
	return o
}

func (o *origin) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(o.Certificate())
	return pool
}

// config leads every name to the origin.
func config(t *testing.T, o *origin, c egressproxy.Config) egressproxy.Config {
	t.Helper()
	for _, text := range []string{"example.com", "*.example.com", "10.0.0.1"} {
		r, err := egress.ParseRule(text)
		if err != nil {
			t.Fatal(err)
		}
		c.Policy.Allow = append(c.Policy.Allow, r)
	}
	if c.Dial == nil {
		c.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, o.Listener.Addr().String())
		}
	}
	if c.Roots == nil {
		c.Roots = o.roots()
	}
	c.Suffix, c.Log = "corridor", slog.New(slog.DiscardHandler)
	return c
}

// run starts a proxy. done gets Run's error once it was stopped.
func run(t *testing.T, c egressproxy.Config) (p *egressproxy.Proxy, address string, stop context.CancelFunc, done <-chan error) {
	t.Helper()
	p, err := egressproxy.New(c)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(stop)
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx, l) }()
	return p, l.Addr().String(), stop, ended
}

// say connects to a proxy and sends a request.
func say(t *testing.T, address, request string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	return conn
}

// newProxy returns a proxy that runs, and a client that asks by it.
func newProxy(t *testing.T, o *origin, c egressproxy.Config) (*egressproxy.Proxy, *http.Client) {
	t.Helper()
	p, address, stop, done := run(t, config(t, o, c))
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", address)
	}}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	return p, &http.Client{Transport: transport}
}

func get(t *testing.T, c *http.Client, url string) (int, string, http.Header) {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body), resp.Header
}

func TestRefused(t *testing.T) {
	t.Parallel()
	o := newOrigin(t, func(http.ResponseWriter, *http.Request) { t.Error("a request was passed on") })
	_, client := newProxy(t, o, egressproxy.Config{})
	for _, tt := range []struct {
		url    string
		status int
		says   string
	}{
		{"http://api.example.com/", 421, "NAME.corridor"},
		{"http://corridor/", 421, "NAME.corridor"},
		{"http://.corridor/", 421, "NAME.corridor"},
		{"http://api.examplecorridor/", 421, "NAME.corridor"},
		{"http://127.1.corridor/", 421, "NAME.corridor"},
		{"http://api.example.com.corridor:0/", 421, "NAME.corridor"},
		{"http://localhost.corridor/", 403, "this enclave itself"},
		{"http://127.0.0.1.corridor/", 403, "this enclave itself"},
		{"http://169.254.169.254.corridor/", 403, "metadata"},
		{"http://api.example.org.corridor/", 403, "--egress-allow"},
	} {
		status, body, header := get(t, client, tt.url)
		if status != tt.status || !strings.Contains(body, tt.says) || header.Get("Proxy-Status") == "" {
			t.Errorf("%s: %d %q, Proxy-Status %q; want %d with %q", tt.url, status, body, header.Get("Proxy-Status"), tt.status, tt.says)
		}
	}
	if n := o.handshakes.Load(); n != 0 {
		t.Errorf("%d connections were made", n)
	}
}

// TestOnlyWhoProvesItsNameIsAsked: certificates are verified, and for the name
// that was asked for.
func TestOnlyWhoProvesItsNameIsAsked(t *testing.T) {
	t.Parallel()
	o := newOrigin(t, func(http.ResponseWriter, *http.Request) { t.Error("a request was passed on") })
	for name, c := range map[string]struct {
		config egressproxy.Config
		url    string
	}{
		"other roots":  {egressproxy.Config{Roots: x509.NewCertPool()}, "http://api.example.com.corridor/"},
		"another name": {egressproxy.Config{}, "http://10.0.0.1.corridor/"},
		"nobody there": {egressproxy.Config{Dial: func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Err: errors.New("no")}
		}}, "http://api.example.com.corridor/"},
	} {
		_, client := newProxy(t, o, c.config)
		if status, body, _ := get(t, client, c.url); status != http.StatusBadGateway || !strings.Contains(body, "the destination cannot be reached") {
			t.Errorf("%s: %d %q", name, status, body)
		}
	}
}

// TestHandshakesArePaidOnce is what the proxy is for. Counts, not times: what a
// handshake costs depends on the line.
func TestHandshakesArePaidOnce(t *testing.T) {
	t.Parallel()
	const requests = 50
	o := newOrigin(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host, r.RequestURI) })
	p, client := newProxy(t, o, egressproxy.Config{})
	for range requests {
		if status, body, _ := get(t, client, "http://API.example.com.corridor//a;b/%2f?x=1;y"); status != 200 || body != "api.example.com//a;b/%2f?x=1;y" {
			t.Fatalf("%d %q", status, body)
		}
	}
	if n := o.handshakes.Load(); n != 1 {
		t.Errorf("%d handshakes for %d requests", n, requests)
	}
	if c := p.Counts()["api.example.com:443"]; c != (egressproxy.Counts{Requests: requests, Connections: 1}) {
		t.Errorf("%+v", c)
	}
	// Another port is another destination, with connections of its own.
	if status, body, _ := get(t, client, "http://api.example.com.corridor:8443/"); status != 200 || body != "api.example.com:8443/" {
		t.Errorf("%d %q", status, body)
	}
	if n := o.handshakes.Load(); n != 2 {
		t.Errorf("%d handshakes", n)
	}
}

// TestMetrics are for whoever is inside, and have a line for each destination.
func TestMetrics(t *testing.T) {
	t.Parallel()
	o := newOrigin(t, func(http.ResponseWriter, *http.Request) {})
	_, client := newProxy(t, o, egressproxy.Config{})
	for _, name := range []string{"a", "b", "a"} {
		get(t, client, "http://"+name+".example.com.corridor/")
	}
	conn, err := client.Transport.(*http.Transport).DialContext(t.Context(), "tcp", "")
	if err != nil {
		t.Fatal(err)
	}
	own := conn.RemoteAddr().String()
	conn.Close()
	if status, _, _ := get(t, client, "http://elsewhere.example/metrics"); status != http.StatusMisdirectedRequest {
		t.Errorf("metrics for another name: %d", status)
	}
	_, page, _ := get(t, client, "http://"+own+"/metrics")
	for _, line := range []string{
		`corridor_egress_requests_total{destination="a.example.com:443"} 2`, `corridor_egress_connections_total{destination="a.example.com:443"} 1`,
		`corridor_egress_requests_total{destination="b.example.com:443"} 1`, `corridor_egress_failures_total{destination="b.example.com:443"} 0`,
	} {
		if !strings.Contains(page, line+"\n") {
			t.Errorf("no line %s in\n%s", line, page)
		}
	}
}

// TestOwnPortMeans443: an app that was given http://NAME.corridor:OURS/ means the
// server, not a port of it.
func TestOwnPortMeans443(t *testing.T) {
	t.Parallel()
	o := newOrigin(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host) })
	_, client := newProxy(t, o, egressproxy.Config{})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://x/", nil)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := client.Transport.(*http.Transport).DialContext(t.Context(), "tcp", "")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(conn.RemoteAddr().String())
	conn.Close()
	req.Host = "example.com.corridor:" + port
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); string(body) != "example.com" {
		t.Errorf("Host was %q", body)
	}
}

func TestHeadersAreTheApps(t *testing.T) {
	t.Parallel()
	o := newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "X-Gone")
		w.Header().Set("X-Gone", "1")
		fmt.Fprint(w, r.Header)
	})
	_, client := newProxy(t, o, egressproxy.Config{})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://example.com.corridor/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{"Authorization": {"Bearer t"}, "Connection": {"X-Hop"}, "X-Hop": {"1"}, "Proxy-Authorization": {"p"}, "X-Forwarded-For": {"203.0.113.7"}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	seen, _ := io.ReadAll(resp.Body)
	for text, want := range map[string]bool{
		"Authorization:[Bearer t]": true, "X-Forwarded-For:[203.0.113.7]": true, "Via:[1.1 corridor (": true,
		"X-Hop": false, "Proxy-Authorization": false, "X-Real-Ip": false, "Forwarded:[for": false, "X-Request-Id": false,
	} {
		if strings.Contains(string(seen), text) != want {
			t.Errorf("the server saw %s; %q is there: %t, want %t", seen, text, !want, want)
		}
	}
	if resp.Header.Get("X-Gone") != "" {
		t.Error("a field of one hop came back")
	}
}

// TestLoop: a server outside that sends a request back here is not answered again.
func TestLoop(t *testing.T) {
	t.Parallel()
	var again atomic.Pointer[http.Client]
	o := newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://example.com.corridor/", nil)
		if err != nil {
			t.Error(err)
			return
		}
		req.Header["Via"] = r.Header["Via"]
		resp, err := again.Load().Do(req)
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		w.WriteHeader(resp.StatusCode)
	})
	p, client := newProxy(t, o, egressproxy.Config{})
	again.Store(client)
	if status, _, _ := get(t, client, "http://example.com.corridor/"); status != http.StatusLoopDetected || p.Counts()["example.com:443"].Requests != 2 {
		t.Errorf("%d, %+v", status, p.Counts())
	}
}

// TestClosedConnectionIsNotUsed: what the server closed while nobody asked costs
// no request, also none that must not be repeated.
func TestClosedConnectionIsNotUsed(t *testing.T) {
	t.Parallel()
	o := newOrigin(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	p, client := newProxy(t, o, egressproxy.Config{})
	for i := range 3 {
		resp, err := client.Post("http://example.com.corridor/", "text/plain", strings.NewReader("once"))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 200 || string(body) != "once" {
			t.Fatalf("request %d: %d %q", i, resp.StatusCode, body)
		}
		o.CloseClientConnections() // returns when they are closed
	}
	if c := p.Counts()["example.com:443"]; c.Connections != 3 || c.Failures != 0 {
		t.Errorf("%+v", c)
	}
}

func TestDestinationsAreBounded(t *testing.T) {
	t.Parallel()
	asked, release := make(chan struct{}), make(chan struct{})
	o := newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(asked)
			<-release
		}
	})
	p, client := newProxy(t, o, egressproxy.Config{MaxDestinations: 1})
	if status, _, _ := get(t, client, "http://a.example.com.corridor/"); status != 200 {
		t.Fatal(status)
	}
	var slow sync.WaitGroup
	slow.Go(func() {
		if resp, err := client.Get("http://b.example.com.corridor/slow"); err != nil || resp.StatusCode != 200 {
			t.Errorf("%v", err)
		} else {
			resp.Body.Close()
		}
	})
	<-asked
	status, body, _ := get(t, client, "http://c.example.com.corridor/")
	close(release)
	slow.Wait()
	if status != http.StatusServiceUnavailable || !strings.Contains(body, "as many destinations") {
		t.Errorf("%d %q", status, body)
	}
	if c := p.Counts(); len(c) != 2 || c["other"].Requests != 1 || c["b.example.com:443"].Requests != 1 {
		t.Errorf("%+v", c)
	}
}

// TestStop: a request under way is cut.
func TestStop(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{})
	o := newOrigin(t, func(_ http.ResponseWriter, r *http.Request) { close(asked); <-r.Context().Done() })
	rule, err := egress.ParseRule("*")
	if err != nil {
		t.Fatal(err)
	}
	_, address, stop, done := run(t, egressproxy.Config{
		Policy: egress.Policy{Allow: []egress.Rule{rule}}, Roots: o.roots(), Suffix: ".Corridor.", Log: slog.New(slog.DiscardHandler),
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, o.Listener.Addr().String())
		},
	})
	conn := say(t, address, "GET / HTTP/1.1\r\nHost: example.com.corridor\r\n\r\n")
	<-asked
	stop()
	if err := <-done; err != nil {
		t.Errorf("Run = %v", err)
	}
	if got, _ := io.ReadAll(conn); bytes.HasPrefix(got, []byte("HTTP/1.1 200")) {
		t.Errorf("%q", got)
	}
}

func TestRoots(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	bad, good := filepath.Join(dir, "bad.pem"), filepath.Join(dir, "good.pem")
	o := newOrigin(t, func(http.ResponseWriter, *http.Request) {})
	for path, text := range map[string][]byte{bad: []byte("no certificate"), good: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: o.Certificate().Raw})} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for path, works := range map[string]bool{bad: false, filepath.Join(dir, "none.pem"): false, good: true} {
		if pool, err := egressproxy.Roots(path); (err == nil) != works || (pool != nil) != works {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := egressproxy.New(egressproxy.Config{}); err == nil {
		t.Error("a proxy that cannot verify anything was made")
	}
}

// TestUpgradesEnd: a connection that switched protocols has no end of its own, and
// does not keep the proxy.
func TestUpgradesEnd(t *testing.T) {
	t.Parallel()
	o := newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "test")
		w.WriteHeader(http.StatusSwitchingProtocols)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.Copy(io.Discard, conn)
	})
	_, address, stop, done := run(t, config(t, o, egressproxy.Config{}))
	c := say(t, address, "GET / HTTP/1.1\r\nHost: example.com.corridor\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n")
	if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", resp, err)
	}
	stop()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("Run = %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Run does not end")
	}
}
