package h2_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/corridor-enclave/corridor/revproxy/h2"
)

// A countingConn counts writes.
type countingConn struct {
	net.Conn
	writes *atomic.Int64
}

func (c *countingConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

type countingListener struct {
	net.Listener
	config *tls.Config
	writes *atomic.Int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return tls.Server(h2.Batch(&countingConn{c, l.writes}), l.config), nil
}

// TestFewWrites: below TLS, a page is a few writes, not one for each record.
func TestFewWrites(t *testing.T) {
	t.Parallel()
	page := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 64 records
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(page) }))
	if _, err := h2.Configure(s.Config); err != nil {
		t.Fatal(err)
	}
	own := httptest.NewUnstartedServer(nil)
	own.EnableHTTP2 = true
	own.StartTLS() // for its certificate
	defer own.Close()
	var writes atomic.Int64
	config := own.TLS.Clone()
	config.NextProtos = []string{"h2"}
	s.Listener = &countingListener{s.Listener, config, &writes}
	s.Start()
	defer s.Close()
	client := own.Client()
	defer client.CloseIdleConnections()
	url := "https://" + s.Listener.Addr().String()
	for range 3 { // TLS's first records are short
		writes.Store(0)
		res, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || !bytes.Equal(got, page) || res.ProtoMajor != 2 {
			t.Fatalf("%s, %d bytes, %v", res.Proto, len(got), err)
		}
	}
	if n := writes.Load(); n > 40 {
		t.Errorf("%d writes for 64 records", n)
	}
}

// TestTurns: a stream does not wait until another has been sent.
func TestTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := dial(t, setup{hush: true}, play)
		c.send(frame{settings, 0, 0, setting(4, largest)})
		c.ask(1, end, get("GET", "/write=100000")...)
		synctest.Wait() // the connection's window is used up
		c.ask(3, end, get("GET", "/write=100000")...)
		synctest.Wait()
		c.send(frame{window, 0, 0, number(1 << 20)})
		first := map[uint32]int{}
		synctest.Wait()
		for len(first) < 2 {
			f, ok := c.next()
			if !ok {
				t.Fatal("the connection ended")
			}
			if f.flags&end != 0 && f.kind == data && len(first) < 2 {
				t.Fatalf("stream %d ended before the other began", f.id)
			}
			if f.kind == data {
				first[f.id]++
			}
		}
	})
}

// TestServersThatAreRefused: timeouts that would bound the whole of an answer.
func TestServersThatAreRefused(t *testing.T) {
	t.Parallel()
	if _, err := h2.Configure(&http.Server{WriteTimeout: 1}); err == nil { //nolint:gosec // it serves nobody
		t.Error("a WriteTimeout was taken")
	}
}

// TestCutShort: an answer shorter than its length is not taken for whole.
func TestCutShort(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/set=Content-Length:9/write=3", "/set=Content-Length:9/write=3/flush", "/set=Content-Length:9", "/set=Content-Length:2/write=1/write=2"} {
		inBubble(t, path, func(t *testing.T) {
			c := dial(t, setup{}, play)
			c.ask(1, end, get("GET", path)...)
			if a := c.answer(1); a.reset != internal && len(a.body) != 1 {
				t.Errorf("%+v", a)
			}
		})
	}
}
