package openloop_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/bench/openloop"
)

// few is a load that is over soon, whatever the machine.
func few() openloop.Load {
	return openloop.Load{
		Arrivals:    openloop.Arrivals{Process: openloop.Uniform, Rate: 200},
		Connections: 2, Duration: 100 * time.Millisecond, Patience: time.Minute, Sleep: openloop.PreciseSleep,
	}
}

// a server counts what it gets.
type server struct {
	*httptest.Server
	conns, requests, bytes atomic.Int64
	protocol               atomic.Value
}

func newServer(t *testing.T, start func(*httptest.Server)) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		s.protocol.Store(r.Proto)
		// Answers while it reads. HTTP/2 can do nothing else, and says so.
		_ = http.NewResponseController(w).EnableFullDuplex()
		n, err := io.Copy(w, r.Body)
		if err != nil {
			t.Errorf("echo: %v", err)
		}
		s.bytes.Add(n)
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.conns.Add(1)
		}
	}
	start(s.Server)
	t.Cleanup(s.Close)
	return s
}

func plaintext(s *httptest.Server) { s.Start() }
func overTLS(s *httptest.Server)   { s.EnableHTTP2 = true; s.StartTLS() }
func overH2C(s *httptest.Server) {
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
}

func TestWaysToATarget(t *testing.T) {
	t.Parallel()
	const requests = 20
	large := make([]byte, 1<<20)
	tests := []struct {
		name     string
		start    func(*httptest.Server)
		change   func(*openloop.Target)
		protocol string
		conns    func(int64) bool
		body     int64
	}{
		{name: "kept alive", start: plaintext, protocol: "HTTP/1.1", conns: upTo2},
		{name: "TLS settings without TLS", start: plaintext, change: func(t *openloop.Target) { t.TLS = &tls.Config{MinVersion: tls.VersionTLS13} }, protocol: "HTTP/1.1", conns: upTo2},
		{name: "always new", start: plaintext, change: func(t *openloop.Target) { t.Fresh = true }, protocol: "HTTP/1.1", conns: exactly(requests)},
		{name: "TLS", start: overTLS, protocol: "HTTP/1.1", conns: upTo2},
		{name: "TLS, always new", start: overTLS, change: func(t *openloop.Target) { t.Fresh = true }, protocol: "HTTP/1.1", conns: exactly(requests)},
		{name: "HTTP/2", start: overTLS, change: func(t *openloop.Target) { t.HTTP2 = true }, protocol: "HTTP/2.0", conns: upTo2},
		{name: "HTTP/2 without TLS", start: overH2C, change: func(t *openloop.Target) { t.HTTP2 = true }, protocol: "HTTP/2.0", conns: upTo2},
		{name: "small bodies", start: plaintext, change: func(t *openloop.Target) { t.Body = large[:1000] }, protocol: "HTTP/1.1", conns: upTo2, body: 1000},
		{name: "large bodies", start: plaintext, change: func(t *openloop.Target) { t.Body = large }, protocol: "HTTP/1.1", conns: upTo2, body: 1 << 20},
		{name: "HTTP/2 with bodies", start: overTLS, change: func(t *openloop.Target) { t.HTTP2, t.Body = true, large[:1<<17] }, protocol: "HTTP/2.0", conns: upTo2, body: 1 << 17},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, tt.start)
			target := openloop.Target{URL: s.URL, Timeout: 30 * time.Second}
			if s.Certificate() != nil {
				roots := x509.NewCertPool()
				roots.AddCert(s.Certificate())
				target.TLS = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
			}
			if tt.change != nil {
				tt.change(&target)
			}
			r, err := openloop.Run(t.Context(), target, few())
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Clean(); err != nil {
				t.Error(err)
			}
			if r.Sent != requests || s.requests.Load() != requests || s.protocol.Load() != tt.protocol || !tt.conns(s.conns.Load()) {
				t.Errorf("%d sent, %d served by %v on %d connections", r.Sent, s.requests.Load(), s.protocol.Load(), s.conns.Load())
			}
			if r.Bytes != requests*tt.body || s.bytes.Load() != requests*tt.body {
				t.Errorf("%d bytes came back of %d served, want %d", r.Bytes, s.bytes.Load(), requests*tt.body)
			}
		})
	}
}

// TestStreamsShareAConnection: the server answers no request before all streams
// have sent theirs, which takes all of them at once.
func TestStreamsShareAConnection(t *testing.T) {
	t.Parallel()
	const streams = 8
	all := make(chan struct{})
	var conns, waiting atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if waiting.Add(1) == streams {
			close(all)
		}
		select {
		case <-all:
		case <-r.Context().Done():
		}
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns.Add(1)
		}
	}
	overH2C(s)
	defer s.Close()
	r, err := openloop.Run(t.Context(), openloop.Target{URL: s.URL, HTTP2: true, Streams: streams, Timeout: time.Minute},
		openloop.Load{Connections: 1, Duration: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Clean(); err != nil || r.OK < streams || conns.Load() != 1 {
		t.Errorf("%d requests on %d connections: %v", r.OK, conns.Load(), err)
	}
}

func upTo2(n int64) bool { return n >= 1 && n <= 2 }

func exactly(want int64) func(int64) bool { return func(n int64) bool { return n == want } }

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(t, func(s *httptest.Server) { _ = s.Listener.Close(); s.Listener = l; s.Start() })
	r, err := openloop.Run(t.Context(), openloop.Target{
		URL: "http://app/", Timeout: 30 * time.Second,
		Dial: func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
	}, few())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Clean(); err != nil || r.OK != s.requests.Load() {
		t.Errorf("%d of %d served: %v", r.OK, s.requests.Load(), err)
	}
}

func TestFailuresHaveAClass(t *testing.T) {
	t.Parallel()
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = nobody.Close()
	tests := []struct {
		name    string
		handler http.HandlerFunc
		change  func(*openloop.Target)
		want    openloop.Class
	}{
		{name: "nobody listens", want: openloop.DialFailed, change: func(t *openloop.Target) { t.URL = "http://" + nobody.Addr().String() }},
		{name: "nobody listens, HTTP/2", want: openloop.DialFailed, change: func(t *openloop.Target) {
			t.URL, t.HTTP2 = "http://"+nobody.Addr().String(), true
		}},
		{name: "not TLS", want: openloop.HandshakeFailed, handler: func(http.ResponseWriter, *http.Request) {},
			change: func(t *openloop.Target) { t.URL = "https" + t.URL[len("http"):] }},
		{name: "too late", want: openloop.TimedOut, handler: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
			change: func(t *openloop.Target) { t.Timeout = 10 * time.Millisecond }},
		{name: "cut", want: openloop.Broken, handler: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10")
			_, _ = w.Write([]byte("half"))
			panic(http.ErrAbortHandler)
		}},
		{name: "an error of the app", want: openloop.BadStatus, handler: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }},
		{name: "another place", want: openloop.BadStatus, handler: func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/x", http.StatusFound) }},
		{name: "another protocol", want: openloop.BadStatus, handler: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusSwitchingProtocols) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewServer(tt.handler)
			defer s.Close()
			s.Config.ErrorLog = nil
			target := openloop.Target{URL: s.URL, Timeout: 30 * time.Second}
			if tt.change != nil {
				tt.change(&target)
			}
			load := few()
			load.Duration = 20 * time.Millisecond
			r, err := openloop.Run(t.Context(), target, load)
			if err != nil {
				t.Fatal(err)
			}
			if r.OK != 0 || r.Sent == 0 || r.Failures[tt.want] != r.Sent || r.Clean() == nil || r.Latency.TotalCount() != 0 {
				t.Errorf("%d sent, %d OK, failures %v (%s), want all of class %s", r.Sent, r.OK, r.Failures, r.First, tt.want)
			}
			if n := r.Refused.TotalCount(); n != r.Failures[openloop.BadStatus] {
				t.Errorf("the time of %d refusals is known, of %d", n, r.Failures[openloop.BadStatus])
			}
		})
	}
}
