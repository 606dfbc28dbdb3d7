package revproxy_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/revproxy"
)

// patience bounds what a broken test waits for; no test measures it.
const patience = 10 * time.Second

// newProxy makes a proxy in front of an app's URL.
func newProxy(t *testing.T, app string, change func(*revproxy.Config)) *revproxy.Proxy {
	t.Helper()
	u, err := url.Parse(app)
	if err != nil {
		t.Fatal(err)
	}
	c := revproxy.Config{App: u, Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&c)
	}
	p, err := revproxy.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// serve puts a handler behind an HTTP server, and both behind the test's end.
func serve(t *testing.T, h http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

// appFunc is an app as a handler, in front of it a proxy, in front of that a server.
func appFunc(t *testing.T, app http.HandlerFunc) (*httptest.Server, *revproxy.Proxy) {
	t.Helper()
	p := newProxy(t, serve(t, app).URL, nil)
	return serve(t, p), p
}

// rawApp is an app that speaks bytes: it reads the head of a request and does as
// it likes.
func rawApp(t *testing.T, act func(head string, c net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(patience))
				head, err := readHead(bufio.NewReader(c))
				if err == nil {
					act(head, c)
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); conns.Wait() })
	return "http://" + l.Addr().String()
}

func readHead(r *bufio.Reader) (string, error) {
	var head strings.Builder
	for {
		line, err := r.ReadString('\n')
		head.WriteString(line)
		if err != nil || line == "\r\n" {
			return head.String(), err
		}
	}
}

// dial opens a connection to a server for a client that speaks bytes.
func dial(t *testing.T, s *httptest.Server) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { c.Close() })
	return c
}

// speak sends bytes and parses the answer.
func speak(t *testing.T, c net.Conn, request string) *http.Response {
	t.Helper()
	if request != "" {
		if _, err := io.WriteString(c, request); err != nil {
			t.Fatal(err)
		}
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return res
}

func body(t *testing.T, res *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	parse := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	tests := []struct {
		name   string
		config revproxy.Config
		want   string
	}{
		{"no app", revproxy.Config{Log: log}, "no app"},
		{"https", revproxy.Config{App: parse("https://127.0.0.1"), Log: log}, "neither"},
		{"no host", revproxy.Config{App: parse("http://:80"), Log: log}, "neither"},
		{"no path", revproxy.Config{App: parse("unix:"), Log: log}, "neither"},
		{"a path", revproxy.Config{App: parse("http://a/b"), Log: log}, "more than"},
		{"a user", revproxy.Config{App: parse("http://u@a"), Log: log}, "more than"},
		{"no logger", revproxy.Config{App: parse("http://a")}, "no logger"},
		{"negative", revproxy.Config{App: parse("http://a"), Log: log, MaxConns: -1}, "negative"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, err := revproxy.New(tt.config); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("New says %v; want %q in it", err, tt.want)
			}
		})
	}
}

func TestTargetsArePassedOnByteByByte(t *testing.T) {
	t.Parallel()
	app := rawApp(t, func(head string, c net.Conn) {
		line, _, _ := strings.Cut(head, "\r\n")
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(line), line)
	})
	front := serve(t, newProxy(t, app, nil))
	for _, target := range []string{
		"/", "/?", "/a?a=1;b=2&c=3", "/a?%zz&=&&", "/a%2Fb/../c/./", "/a%2fb%7Ec~", "/|^{}`<>\"", "/\xc3\xa9\xff?\xff",
		"//double/slash", "/a//b", "/:80", "/?a=b?c=d", "/%41",
	} {
		t.Run(target, func(t *testing.T) {
			t.Parallel()
			res := speak(t, dial(t, front), "GET "+target+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			if got, want := body(t, res), "GET "+target+" HTTP/1.1"; got != want {
				t.Errorf("the app saw %q; want %q", got, want)
			}
		})
	}
}

func TestForwardingFields(t *testing.T) {
	t.Parallel()
	app := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for field, values := range r.Header {
			w.Header().Set("Saw-"+field, strings.Join(values, "|"))
		}
		w.Header().Set("Saw-Host", r.Host)
	}))
	p := newProxy(t, app.URL, nil)
	claims := []string{
		"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Ssl", "X-Forwarded-Anything",
		"Forwarded", "X-Real-IP", "True-Client-IP", "X-Client-IP", "X-Request-ID", "CF-Connecting-IP", "X_Forwarded_For", "X_Real-IP",
	}
	tests := []struct {
		name, url, remote string
		want              map[string]string // of the fields that say where a request comes from: exactly these
	}{
		{"an IPv4 client", "http://example.com:81/", "192.0.2.7:999", map[string]string{
			"X-Forwarded-For": "192.0.2.7", "X-Real-Ip": "192.0.2.7", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "example.com:81",
			"Forwarded": `for=192.0.2.7;host="example.com:81";proto=http`}},
		{"an IPv6 client over TLS", "https://example.com/", "[2001:db8::1%eth0]:999", map[string]string{
			"X-Forwarded-For": "2001:db8::1", "X-Real-Ip": "2001:db8::1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "example.com",
			"Forwarded": `for="[2001:db8::1]";host="example.com";proto=https`}},
		{"an IPv4 client on an IPv6 socket", "http://h/", "[::ffff:192.0.2.7]:1", map[string]string{
			"X-Forwarded-For": "192.0.2.7", "X-Real-Ip": "192.0.2.7", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "h",
			"Forwarded": `for=192.0.2.7;host="h";proto=http`}},
		{"a VSOCK client", "http://h/", "vsock:3:99", map[string]string{
			"X-Forwarded-Proto": "http", "X-Forwarded-Host": "h", "Forwarded": `host="h";proto=http`}},
		{"a unix client", "http://h/", "@", map[string]string{
			"X-Forwarded-Proto": "http", "X-Forwarded-Host": "h", "Forwarded": `host="h";proto=http`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, tt.url, nil)
			r.RemoteAddr = tt.remote
			for _, claim := range claims {
				r.Header[claim] = []string{"198.51.100.66"}
			}
			w := httptest.NewRecorder()
			p.ServeHTTP(w, r)
			got := map[string]string{}
			for field, values := range w.Header() {
				name, ok := strings.CutPrefix(field, "Saw-")
				if !ok {
					continue
				}
				if strings.Contains(values[0], "198.51.100.66") {
					t.Errorf("the app believes %s: %s", name, values[0])
				}
				if strings.HasPrefix(name, "X-") || name == "Forwarded" {
					got[name] = values[0]
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("the app saw %v; want %v", got, tt.want)
			}
			if host := w.Header().Get("Saw-Host"); host != r.Host {
				t.Errorf("the app saw Host %q; want %q", host, r.Host)
			}
			if via := w.Header().Get("Saw-Via"); via != "1.1 corridor" {
				t.Errorf("the app saw Via %q", via)
			}
		})
	}
}

func TestAppFailures(t *testing.T) {
	t.Parallel()
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	says := func(s string) string { return rawApp(t, func(_ string, c net.Conn) { _, _ = io.WriteString(c, s) }) }
	hanging := rawApp(t, func(_ string, c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	tests := []struct {
		name, app string
		status    int
		token     string
	}{
		{"nothing listens", closed.URL, 502, "connection_refused"},
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

func TestMaxForwards(t *testing.T) {
	t.Parallel()
	front, _ := appFunc(t, func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Saw", r.Header.Get("Max-Forwards")) })
	for sent, want := range map[string]string{"0": "", "1": "0", "70": "69", "x": "x"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, front.URL+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Max-Forwards", sent)
		res, err := front.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if got := res.Header.Get("Saw"); got != want || (sent == "0") != (res.StatusCode == http.StatusNoContent) {
			t.Errorf("Max-Forwards %s: %s, the app saw %q; want %q", sent, res.Status, got, want)
		}
	}
}

func TestCompressedContentIsNotTouched(t *testing.T) {
	t.Parallel()
	front, _ := appFunc(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Etag", `"x"`)
		w.Header().Set("Content-Length", "8")
		w.Header().Set("Saw", r.Header.Get("Accept-Encoding"))
		_, _ = io.WriteString(w, "not gzip")
	})
	res := speak(t, dial(t, front), "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if got := body(t, res); got != "not gzip" || res.ContentLength != 8 || res.Header.Get("Content-Encoding") != "gzip" || res.Header.Get("Saw") != "" {
		t.Errorf("%q, %d bytes, %v; want what the app sent, and no Accept-Encoding of ours", got, res.ContentLength, res.Header)
	}
}

// A body that ends with the app's connection may have been cut. It is not to be
// given a proper end on the way.
func TestAnswerWithoutLengthIsNotVouchedFor(t *testing.T) {
	t.Parallel()
	app := rawApp(t, func(_ string, c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nhalf of it") })
	res := speak(t, dial(t, serve(t, newProxy(t, app, nil))), "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if got := body(t, res); got != "half of it" || len(res.TransferEncoding) != 0 || res.ContentLength != -1 || !res.Close {
		t.Errorf("%q, transfer encoding %v, length %d, close %t; want it to end with the connection", got, res.TransferEncoding, res.ContentLength, res.Close)
	}
}

func TestAnswerCutShortIsCutShort(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"by length": "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it",
		"by chunks": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhalf of it\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app := rawApp(t, func(_ string, c net.Conn) { _, _ = io.WriteString(c, answer) })
			front := serve(t, newProxy(t, app, nil))
			res, err := front.Client().Get(front.URL)
			if err == nil { // else it was cut before the head had left the proxy's buffer
				_, err = io.ReadAll(res.Body)
				res.Body.Close()
			}
			if !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
				t.Errorf("the answer ended with %v; want an unexpected end", err)
			}
		})
	}
}

func TestUpgradeTunnelsBothWays(t *testing.T) {
	t.Parallel()
	app := rawApp(t, func(head string, c net.Conn) {
		if !strings.Contains(head, "Upgrade: websocket") {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello ")
		_, _ = io.Copy(c, c) // until the client's half-close
		_, _ = io.WriteString(c, " bye")
	})
	c := dial(t, serve(t, newProxy(t, app, nil)))
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	head, err := readHead(r)
	if err != nil || !strings.HasPrefix(head, "HTTP/1.1 101 ") {
		t.Fatalf("%q, %v; want 101", head, err)
	}
	if _, err := io.WriteString(c, "\x81\x00echo"); err != nil {
		t.Fatal(err)
	}
	_ = c.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(r); string(got) != "hello \x81\x00echo bye" || err != nil {
		t.Fatalf("the tunnel gave %q, %v", got, err)
	}
}

func TestEventsAreFlushedAtOnce(t *testing.T) {
	t.Parallel()
	next := make(chan struct{})
	front, _ := appFunc(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for range 3 {
			_, _ = io.WriteString(w, "data: x\n\n")
			_ = http.NewResponseController(w).Flush()
			<-next // the client has it, or nothing goes on
		}
	})
	res, err := front.Client().Get(front.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	for range 3 {
		if _, err := io.ReadFull(res.Body, make([]byte, len("data: x\n\n"))); err != nil {
			t.Fatal(err)
		}
		next <- struct{}{}
	}
}

// TestProtocolFeatures sends one request with everything over HTTP/1.1 and HTTP/2.
func TestProtocolFeatures(t *testing.T) {
	t.Parallel()
	app := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		w.Header().Set("Trailer", "Sum")
		_, _ = io.Copy(w, r.Body)
		w.Header().Set("Sum", "of "+r.Trailer.Get("Sum")+r.Trailer.Get("X-Real-Ip"))
		w.Header().Set(http.TrailerPrefix+"Late", "yes")
	}))
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("http2 is %t", h2), func(t *testing.T) {
			t.Parallel()
			front := httptest.NewUnstartedServer(newProxy(t, app.URL, nil))
			front.EnableHTTP2 = h2
			front.StartTLS()
			t.Cleanup(front.Close)
			hints := 0
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				if code == http.StatusEarlyHints && h.Get("Link") != "" {
					hints++
				}
				return nil
			}})
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, front.URL, io.MultiReader(strings.NewReader("all of it")))
			if err != nil {
				t.Fatal(err)
			}
			req.Trailer = http.Header{"Sum": {"nine"}, "X-Real-Ip": {"198.51.100.66"}}
			res, err := front.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if got := body(t, res); got != "all of it" || (res.ProtoMajor == 2) != h2 {
				t.Errorf("%q over %s", got, res.Proto)
			}
			if hints != 1 {
				t.Errorf("%d early hints; want 1", hints)
			}
			if sum, late := res.Trailer.Get("Sum"), res.Trailer.Get("Late"); sum != "of nine" || late != "yes" {
				t.Errorf("trailers %v; want the client's sum, without its address, and a late one", res.Trailer)
			}
		})
	}
}

func TestUnixApp(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	app := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Host)
	})}}
	app.Start()
	t.Cleanup(app.Close)
	front := serve(t, newProxy(t, "unix:"+path, nil))
	if got := body(t, speak(t, dial(t, front), "GET / HTTP/1.1\r\nHost: x.example\r\n\r\n")); got != "x.example" {
		t.Errorf("the app saw Host %q", got)
	}
}

func TestConnectionsToTheAppAreKept(t *testing.T) {
	t.Parallel()
	const together = 32
	var mu sync.Mutex
	opened := 0
	var arrived sync.WaitGroup
	app := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		arrived.Done()
		arrived.Wait() // all of a round are under way at once
	}))
	app.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		mu.Lock()
		defer mu.Unlock()
		if s == http.StateNew {
			opened++
		}
	}
	app.Start()
	t.Cleanup(app.Close)
	p := newProxy(t, app.URL, nil)
	for range 5 {
		arrived.Add(together)
		var round sync.WaitGroup
		for range together {
			round.Go(func() {
				w := httptest.NewRecorder()
				p.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
				if w.Code != http.StatusOK {
					t.Errorf("status %d", w.Code)
				}
			})
		}
		round.Wait()
	}
	mu.Lock()
	defer mu.Unlock()
	// A connection returns to the pool a moment after its answer has ended, so
	// a round may open a few more than the one before it.
	if opened > 2*together {
		t.Errorf("%d connections for 5 rounds of %d requests", opened, together)
	}
}
