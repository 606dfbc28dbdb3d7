package revproxy_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/corridor-enclave/corridor/revproxy"
)

// serveStrictly puts a proxy behind a server that is strict about framing.
func serveStrictly(t *testing.T, p *revproxy.Proxy, secure *tls.Config) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(p)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetHTTP2(true)
	s.Config.TLSConfig = secure
	lane, err := p.NewLane(revproxy.LaneConfig{Server: s.Config, Off: laneIsOff(), TLS: secure})
	if err != nil {
		t.Fatal(err)
	}
	s.Listener = revproxy.Strict(lane.Listen(s.Listener), patience)
	s.Start()
	t.Cleanup(s.Close)
	t.Cleanup(lane.Close)
	return s
}

// ownTLS is a server's TLS with httptest's certificate, and a client's for it.
func ownTLS(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	defer s.Close()
	client = s.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	client.ServerName = "example.com"
	return &tls.Config{Certificates: s.TLS.Certificates, NextProtos: []string{"h2", "http/1.1"}}, client
}

// TestStrict: what RFC 9112 lets a recipient accept, and two recipients may understand
// differently, is refused by a server that is strict, with TLS and without.
func TestStrict(t *testing.T) {
	t.Parallel()
	const post, chunked = "POST / HTTP/1.1\r\nHost: x\r\n", "Transfer-Encoding: chunked\r\n\r\n"
	get := "GET / HTTP/1.1\r\nHost: x\r\nTE: trailers\r\n\r\n" // not the lane's
	tests := []struct {
		name, request string
		status        int
	}{
		{"LF behind the request line", "GET / HTTP/1.1\nHost: x\r\n\r\n", 400},
		{"LF behind a field", "GET / HTTP/1.1\r\nHost: x\nTE: trailers\r\n\r\n", 400},
		{"LF behind the head", "GET / HTTP/1.1\r\nHost: x\r\n\n", 400},
		{"two CR before LF", "GET / HTTP/1.1\r\nHost: x\r\r\n\r\n", 400},
		{"LF behind a trailer", post + chunked + "0\r\nA: b\nC: d\r\n\r\n", 400},
		{"LF behind a chunk's size", post + chunked + "1\nx\r\n0\r\n\r\n", 400},
		{"LF behind a chunk", post + "TE: trailers\r\n" + chunked + "1\r\nx\n0\r\n\r\n", 400},
		{"length and chunks", post + "Content-Length: 3\r\n" + chunked + "1\r\nx\r\n0\r\n\r\n", 400},
		{"chunks and length", post + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n1\r\nx\r\n0\r\n\r\n", 400},
		{"chunks in HTTP/1.0", "POST / HTTP/1.0\r\n" + chunked + "0\r\n\r\n", 400},
		{"two lengths", post + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 400},
		{"LF in the second request", get + "GET / HTTP/1.1\nHost: x\r\n\r\n", 400},
		{"LF behind a body", post + "TE: trailers\r\nContent-Length: 1\r\n\r\nxGET / HTTP/1.1\nHost: x\r\n\r\n", 400},
		{"two empty lines first", "\r\n\r\n" + get, 400},
		{"LF first", "\n" + get, 400},
		{"CR alone first", "\r" + get, 400},
		{"an empty line first", "\r\n" + get, 200},
		{"an empty line between two", get + "\r\n" + get, 200},
		{"LF within a body", post + "TE: trailers\r\nContent-Length: 3\r\n\r\n\nx\n" + get, 200},
		{"LF within a chunk, and trailers", post + "TE: trailers\r\n" + chunked + "2;a=b\r\n\n\n\r\n0\r\nA: b\r\n\r\n", 200},
		{"HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", 200},
	}
	server, client := ownTLS(t)
	for _, secure := range []bool{false, true} {
		for _, tt := range tests {
			t.Run(fmt.Sprintf("%s, TLS is %t", tt.name, secure), func(t *testing.T) {
				t.Parallel()
				app := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
				var config *tls.Config
				if secure {
					config = server.Clone()
				}
				c := dial(t, serveStrictly(t, newProxy(t, app.URL, nil), config))
				if secure {
					c = tls.Client(c, client)
				}
				if tt.status == http.StatusOK { // else the server ends it
					tt.request += "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
				}
				if _, err := io.WriteString(c, tt.request); err != nil {
					t.Fatal(err)
				}
				all, err := io.ReadAll(c)
				if err != nil {
					t.Fatal(err)
				}
				last := string(all)[strings.LastIndex(string(all), "HTTP/1."):]
				if want := fmt.Sprintf("HTTP/1.1 %d ", tt.status); !strings.HasPrefix(last, want) && !strings.HasPrefix(last, strings.Replace(want, "1.1", "1.0", 1)) {
					t.Errorf("the last answer of %q is not %s", all, want)
				}
			})
		}
	}
}

// TestStrictLeavesOthersAlone: HTTP/2 and what follows an upgrade have no lines.
func TestStrictLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	app := rawApp(t, func(head string, c net.Conn) {
		if strings.Contains(head, "Upgrade: x") {
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
			_, _ = io.Copy(c, c)
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	})
	server, client := ownTLS(t)
	front := serveStrictly(t, newProxy(t, app, nil), server)
	h2 := &http.Client{Transport: &http.Transport{TLSClientConfig: client, ForceAttemptHTTP2: true}}
	t.Cleanup(h2.CloseIdleConnections)
	res, err := h2.Get("https://" + front.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if res.Body.Close(); res.ProtoMajor != 2 || res.StatusCode != http.StatusOK {
		t.Errorf("%s %s", res.Proto, res.Status)
	}

	c := dial(t, serveStrictly(t, newProxy(t, app, nil), nil))
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if head := readAnswer(t, c); !strings.HasPrefix(head, "HTTP/1.1 101 ") {
		t.Fatal(head)
	}
	if _, err := io.WriteString(c, "a\nb\n\r\r\n"); err != nil {
		t.Fatal(err)
	}
	_ = c.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(c); string(got) != "a\nb\n\r\r\n" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// TestStrictHandshakesEnd: a client that does not shake hands holds up nobody, and
// ends with the listener.
func TestStrictHandshakesEnd(t *testing.T) {
	t.Parallel()
	server, client := ownTLS(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	strict := revproxy.Strict(tls.NewListener(l, server), patience)
	silent, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	shaken := make(chan error, 1)
	go func() {
		c, err := tls.Dial("tcp", l.Addr().String(), client)
		if err == nil {
			c.Close()
		}
		shaken <- err
	}()
	c, err := strict.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	<-shaken
	if err := strict.Close(); err != nil {
		t.Error(err)
	}
	if _, err := strict.Accept(); err == nil {
		t.Error("accepted after its end")
	}
	_ = silent.SetReadDeadline(deadline())
	if n, err := io.Copy(io.Discard, silent); err != nil && isTimeout(err) {
		t.Errorf("the silent client was kept: %d, %v", n, err)
	}
}

func deadline() time.Time { return time.Now().Add(patience) }

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

func readAnswer(t *testing.T, c net.Conn) string {
	t.Helper()
	head, err := readHead(bufio.NewReaderSize(iotest.OneByteReader(c), 16))
	if err != nil {
		t.Fatal(err)
	}
	return head
}
