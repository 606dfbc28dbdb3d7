package revproxy_test

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/corridor-enclave/corridor/revproxy"
)

// serveTLS puts a proxy behind a server that speaks HTTP/2 if asked to.
func serveTLS(t *testing.T, p http.Handler, h2 bool) *httptest.Server {
	t.Helper()
	s := unstartedTLS(p)
	s.EnableHTTP2 = h2
	withH2(t, s)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func unstartedTLS(h http.Handler) *httptest.Server {
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	return s
}

// bothProtocols runs a test with a client of HTTP/1.1 and with one of HTTP/2.
func bothProtocols(t *testing.T, test func(t *testing.T, h2 bool)) {
	t.Helper()
	for name, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, h2)
		})
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*http.Request)
		status int
		cause  revproxy.Cause
	}{
		{"another host", func(r *http.Request) { r.Host = "other" }, 421, revproxy.RequestDenied},
		{"a long target", func(r *http.Request) { r.URL.RawQuery = strings.Repeat("x", 1001) }, 414, revproxy.RequestError},
		{"many fields", func(r *http.Request) { r.Header["A"] = make([]string, 40) }, 431, revproxy.RequestError},
		{"TRACE", func(r *http.Request) { r.Method = http.MethodTrace }, 405, revproxy.RequestDenied},
		{"a declared body too large", func(r *http.Request) {
			r.Method, r.ContentLength, r.Body = http.MethodPost, 101, io.NopCloser(strings.NewReader(strings.Repeat("x", 101)))
		}, 413, revproxy.RequestError},
		{"a body too large", func(r *http.Request) {
			r.Method, r.ContentLength, r.Body = http.MethodPost, -1, io.NopCloser(strings.NewReader(strings.Repeat("x", 101)))
		}, 413, revproxy.RequestError},
		{"nothing wrong", func(*http.Request) {}, 200, 0},
	}
	bothProtocols(t, func(t *testing.T, h2 bool) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				p := newProxy(t, echoApp(t), func(c *revproxy.Config) {
					c.Hosts, c.MaxTargetBytes, c.MaxFields, c.MaxBodyBytes = []string{"127.0.0.1"}, 1000, 30, 100
				})
				front := serveTLS(t, p, h2)
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, front.URL+"/", nil)
				if err != nil {
					t.Fatal(err)
				}
				tt.change(req)
				res, err := front.Client().Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				if res.StatusCode != tt.status || (res.ProtoMajor == 2) != h2 {
					t.Errorf("%s %s; want %d", res.Proto, res.Status, tt.status)
				}
				status, id := res.Header.Get("Proxy-Status"), res.Header.Get("X-Request-Id")
				if ours := tt.status != 200; ours != (status == "corridor; error="+tt.cause.String()) || ours != (id != "") {
					t.Errorf("Proxy-Status %q, request id %q", status, id)
				}
				if n := p.Counts().Causes[tt.cause]; tt.status != 200 && n != 1 {
					t.Errorf("counted %d times as %s", n, tt.cause)
				}
			})
		}
	})
}

func TestLoop(t *testing.T) {
	t.Parallel()
	bothProtocols(t, func(t *testing.T, h2 bool) {
		var target string
		app := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, target, nil)
			if err != nil {
				t.Error(err)
				return
			}
			req.Header = r.Header.Clone()
			res, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				t.Error(err)
				return
			}
			defer res.Body.Close()
			w.WriteHeader(res.StatusCode)
		}))
		p := newProxy(t, app.URL, nil)
		inner := serve(t, p)
		target = inner.URL
		t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
		front := serveTLS(t, p, h2)
		res, err := front.Client().Get(front.URL)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusLoopDetected || p.Counts().Causes[revproxy.LoopDetected] != 1 {
			t.Errorf("%s, %v", res.Status, p.Counts())
		}
	})
}

// A client that still sends must see what the app says before it has everything.
func TestEarlyAnswerDuringUpload(t *testing.T) {
	t.Parallel()
	bothProtocols(t, func(t *testing.T, h2 bool) {
		app := rawApp(t, func(_ string, c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
			_, _ = io.Copy(io.Discard, c)
		})
		front := serveTLS(t, newProxy(t, app, nil), h2)
		slow, end := io.Pipe()
		go func() { _, _ = io.WriteString(end, "some") }()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, front.URL, slow)
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = 100
		res, err := front.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if got := body(t, res); got != "no" || res.StatusCode != http.StatusForbidden {
			t.Errorf("%s, %q", res.Status, got)
		}
		end.CloseWithError(errors.New("told enough"))
	})
}

func TestExpectContinueEndToEnd(t *testing.T) {
	t.Parallel()
	bothProtocols(t, func(t *testing.T, h2 bool) {
		app := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/no" {
				w.WriteHeader(http.StatusExpectationFailed)
				return
			}
			_, _ = io.Copy(w, r.Body) // makes net/http send 100
		}))
		front := serveTLS(t, newProxy(t, app.URL, nil), h2)
		front.Client().Transport.(*http.Transport).ExpectContinueTimeout = patience
		for path, want := range map[string]string{"/yes": "content", "/no": ""} {
			sent := &countingReader{Reader: strings.NewReader("content")}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, front.URL+path, sent)
			if err != nil {
				t.Fatal(err)
			}
			req.ContentLength = 7
			req.Header.Set("Expect", "100-continue")
			res, err := front.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			// Go's HTTP/2 client sends what it has once there is any answer.
			if got := body(t, res); got != want || (!h2 && (sent.n > 0) != (want != "")) {
				t.Errorf("%s: %s, %q, %d bytes sent", path, res.Status, got, sent.n)
			}
		}
	})
}

type countingReader struct {
	io.Reader
	n int
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += n
	return n, err
}

// When a process dies its connections end as if it had said everything.
func TestAnswerOfAnAppThatDied(t *testing.T) {
	t.Parallel()
	for _, dies := range []bool{true, false} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if dies {
				l.Close()
			}
			buf := make([]byte, 4096)
			_, _ = c.Read(buf)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nhalf of it")
			c.Close()
		}()
		front := serveTLS(t, newProxy(t, "http://"+l.Addr().String(), nil), true)
		res, err := front.Client().Get(front.URL)
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(res.Body)
		res.Body.Close()
		if string(content) != "half of it" || (err != nil) != dies {
			t.Errorf("the app dies is %t: %q, %v", dies, content, err)
		}
	}
}

// TestHTTP2App speaks to an app as gRPC does: HTTP/2 without TLS, both ways at
// once, with the outcome in the trailers.
func TestHTTP2App(t *testing.T) {
	t.Parallel()
	app := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 || r.Header.Get("Te") != "trailers" {
			t.Errorf("the app saw %s, %v", r.Proto, r.Header)
		}
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		_ = http.NewResponseController(w).Flush()
		buf := make([]byte, 16)
		for {
			n, err := r.Body.Read(buf)
			_, _ = w.Write(buf[:n])
			_ = http.NewResponseController(w).Flush()
			if err != nil {
				break
			}
		}
		w.Header().Set("Grpc-Status", "0")
	}))
	front := serveTLS(t, newProxy(t, startH2C(t, app), nil), true)
	in, out := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, front.URL+"/svc/Method", in)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Te", "trailers")
	res, err := front.Client().Do(req) // returns before anything was sent
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	for _, message := range []string{"one", "two"} {
		if _, err := io.WriteString(out, message); err != nil {
			t.Fatal(err)
		}
		echo := make([]byte, 3)
		if _, err := io.ReadFull(res.Body, echo); err != nil || string(echo) != message {
			t.Fatalf("%q, %v; want %q back before the next is sent", echo, err, message)
		}
	}
	out.Close()
	if rest := body(t, res); rest != "" || res.Trailer.Get("Grpc-Status") != "0" {
		t.Errorf("%q, trailers %v", rest, res.Trailer)
	}
}

// startH2C starts an app that speaks HTTP/2 without TLS, and returns its URL.
func startH2C(t *testing.T, app *httptest.Server) string {
	t.Helper()
	app.Config.Protocols = new(http.Protocols)
	app.Config.Protocols.SetUnencryptedHTTP2(true)
	app.Start()
	t.Cleanup(app.Close)
	return "h2c://" + app.Listener.Addr().String()
}

// TestHTTP2AppAnswersEarly: the end of an answer does not wait for the end of an
// upload that the app did not want.
func TestHTTP2AppAnswersEarly(t *testing.T) {
	t.Parallel()
	for _, overHTTP2 := range []bool{true, false} {
		t.Run(fmt.Sprintf("client speaks HTTP/2 %t", overHTTP2), func(t *testing.T) {
			t.Parallel()
			app := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.ReadFull(r.Body, make([]byte, 5))
				w.Header().Set("Trailer", "Grpc-Status")
				_, _ = io.WriteString(w, "no more")
				_ = http.NewResponseController(w).Flush() // or it gets a length, and HTTP/1 no trailers
				w.Header().Set("Grpc-Status", "7")
			}))
			front := serveTLS(t, newProxy(t, startH2C(t, app), nil), overHTTP2)
			in, out := io.Pipe()
			defer out.Close()
			go func() { _, _ = io.WriteString(out, "begin") }()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, front.URL+"/svc/Method", in)
			if err != nil {
				t.Fatal(err)
			}
			res, err := front.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if all := body(t, res); all != "no more" || res.Trailer.Get("Grpc-Status") != "7" {
				t.Errorf("%q, trailers %v", all, res.Trailer)
			}
		})
	}
}
