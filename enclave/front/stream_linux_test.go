package front_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/enclave/front"
	"github.com/corridor-enclave/corridor/enclave/inbound"
	"github.com/corridor-enclave/corridor/revproxy"
	"github.com/corridor-enclave/corridor/revproxy/eventloop"
	"github.com/corridor-enclave/corridor/tapstack/simvsock"
	"github.com/corridor-enclave/corridor/tapstack/stream"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// A seenListener remembers what it has accepted.
type seenListener struct {
	net.Listener
	seen chan net.Conn
}

func (l *seenListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.seen <- c
	}
	return c, err
}

// A road is the stream road to a front.
type road struct {
	t       *testing.T
	outside vsockconn.Transport
	streams *inbound.Listener
	seen    chan net.Conn // what the front has accepted
}

// overStreams runs a front on streams.
func overStreams(t *testing.T, cfg front.Config) (r *road, stop func() error) {
	t.Helper()
	dir := t.TempDir()
	inside, err := simvsock.Dir(dir, 16)
	if err != nil {
		t.Fatal(err)
	}
	r = &road{t: t, seen: make(chan net.Conn, 16)}
	if r.outside, err = simvsock.Dir(dir, vsockconn.CIDParent); err != nil {
		t.Fatal(err)
	}
	l, err := inside.Listen(stream.Port)
	if err != nil {
		t.Fatal(err)
	}
	r.streams = inbound.Listen(inbound.Config{Listener: l, Parent: vsockconn.CIDParent, Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(r.streams.Wait)
	cfg.Listeners = []net.Listener{&seenListener{r.streams, r.seen}}
	return r, run(t, cfg)
}

// dial opens a stream as the host does for a client.
func (r *road) dial() *stream.Conn {
	r.t.Helper()
	c, err := r.outside.Dial(r.t.Context(), vsockconn.Addr{CID: 16, Port: stream.Port})
	if err != nil {
		r.t.Fatal(err)
	}
	s := stream.New(c)
	r.t.Cleanup(func() { _ = s.Close() })
	_ = s.SetDeadline(time.Now().Add(20 * time.Second))
	o := stream.Opening{Client: netip.MustParseAddrPort("203.0.113.7:1"), Local: netip.MustParseAddrPort("192.0.2.1:443")}
	if _, err := s.Write(o.Append(nil)); err != nil {
		r.t.Fatal(err)
	}
	return s
}

// onLoop reports whether a connection is on an event loop.
func onLoop(c net.Conn) bool {
	_, is := c.(revproxy.Moving).Inner().(*eventloop.Conn)
	return is
}

// ask sends a request and returns the answer's body.
func ask(t *testing.T, c net.Conn, from *bufio.Reader, request string) string {
	t.Helper()
	say(t, c, request)
	res, err := http.ReadResponse(from, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// TestStreamsAreOnLoops: connections of the stream road are served on event loops, leave
// them for what the lane does not take, and know their client on both sides.
func TestStreamsAreOnLoops(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("TLS is %t", secure), func(t *testing.T) {
			t.Parallel()
			cfg := fastFront(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.WriteString(w, r.Header.Get("X-Forwarded-For"))
			})
			if secure {
				cfg.Certificates = newCertificates(t)
			}
			r, _ := overStreams(t, cfg)
			s := r.dial()
			c := net.Conn(s)
			if secure {
				c = tls.Client(s, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the document is the trust
			}
			from := bufio.NewReader(c)
			if got := ask(t, c, from, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); got != "203.0.113.7" {
				t.Errorf("the app was told that %q asks", got)
			}
			accepted := <-r.seen
			if !onLoop(accepted) {
				t.Error("the connection is on no loop")
			}
			if got := ask(t, c, from, "GET http://x/ HTTP/1.1\r\nHost: x\r\n\r\n"); got != "203.0.113.7" { // not simple
				t.Errorf("off the loop the app was told that %q asks", got)
			}
			if onLoop(accepted) {
				t.Error("the connection did not leave its loop")
			}
			if err := s.CloseWrite(); err != nil {
				t.Error(err)
			}
			if _, err := io.Copy(io.Discard, s); err != nil {
				t.Errorf("the host reads the end with %v", err)
			}
		})
	}
}

// TestStreamsEndWithTheFront: a drain ends what is idle on a loop in order, which its
// client sees though it says nothing; and what is under way has its answer before.
func TestStreamsEndWithTheFront(t *testing.T) {
	t.Parallel()
	arrived, answer := make(chan struct{}, 1), make(chan struct{})
	cfg := fastFront(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			arrived <- struct{}{}
			<-answer
		}
		_, _ = io.WriteString(w, "whole answer")
	})
	r, stop := overStreams(t, cfg)
	idle, busy := r.dial(), r.dial()
	ask(t, idle, bufio.NewReader(idle), "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	say(t, busy, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
	<-arrived
	for range 2 {
		if !onLoop(<-r.seen) {
			t.Error("a connection is on no loop")
		}
	}
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	if got, err := io.ReadAll(idle); len(got) > 0 || err != nil {
		t.Errorf("the idle one ends with %q, %v", got, err)
	}
	close(answer)
	res, err := http.ReadResponse(bufio.NewReader(busy), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); string(body) != "whole answer" || err != nil {
		t.Errorf("%q, %v", body, err)
	}
	_, _ = idle.CloseWrite(), busy.CloseWrite()
	if err := <-stopped; err != nil {
		t.Errorf("Run = %v", err)
	}
}

// TestStreamsThatGiveUp: a client that goes away ends its request to the app.
func TestStreamsThatGiveUp(t *testing.T) {
	t.Parallel()
	arrived, gone := make(chan struct{}), make(chan struct{})
	cfg := fastFront(t, func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
		close(gone)
	})
	r, _ := overStreams(t, cfg)
	c := r.dial()
	say(t, c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	<-arrived
	if err := c.Reset(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-gone:
	case <-time.After(20 * time.Second):
		t.Error("the app's request goes on")
	}
}
