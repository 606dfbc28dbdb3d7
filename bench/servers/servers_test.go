package servers_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/corridor-enclave/corridor/bench/sampleapp"
	"github.com/corridor-enclave/corridor/bench/servers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs a server until the test ends, which must be an orderly end.
func serve(t *testing.T, kind servers.Kind, to, network, address string) net.Addr {
	t.Helper()
	s, err := servers.New(kind, to, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	})
	return l.Addr()
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		kind servers.Kind
		to   string
	}{{"nothing", "127.0.0.1:1"}, {servers.Corridor, ""}, {servers.Tuned, "/run/app.sock"}, {servers.Default, servers.H2C + "127.0.0.1:1"}} {
		if _, err := servers.New(tt.kind, tt.to, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%s to %q was made", tt.kind, tt.to)
		}
	}
}

// TestHTTP2OnBothSides: the app is asked by the protocol that was asked for, and not
// by what the client speaks.
func TestHTTP2OnBothSides(t *testing.T) {
	t.Parallel()
	app := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }))
	app.Config.Protocols = servers.Protocols()
	app.Start()
	t.Cleanup(app.Close)
	plain := app.Listener.Addr().String()
	for to, want := range map[string]string{plain: "HTTP/1.1", servers.H2C + plain: "HTTP/2.0"} {
		for _, kind := range []servers.Kind{servers.Corridor, servers.Tuned} {
			addr := serve(t, kind, to, "tcp", "127.0.0.1:0")
			var protocols http.Protocols
			protocols.SetUnencryptedHTTP2(true)
			transport := &http.Transport{Protocols: &protocols}
			t.Cleanup(transport.CloseIdleConnections)
			resp, err := (&http.Client{Transport: transport}).Get(fmt.Sprintf("http://%s/", addr))
			if err != nil {
				t.Fatalf("%s to %s: %v", kind, to, err)
			}
			got, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || resp.ProtoMajor != 2 || string(got) != want {
				t.Errorf("%s to %s: the client sees %s, the app %q, %v; want HTTP/2.0 and %q", kind, to, resp.Proto, got, err, want)
			}
		}
	}
}

// TestServersServe sends requests through each of them, over one connection, and
// leaves that open at the end.
func TestServersServe(t *testing.T) {
	t.Parallel()
	app := httptest.NewServer(sampleapp.New())
	t.Cleanup(app.Close)
	to := strings.TrimPrefix(app.URL, "http://")
	for _, kind := range servers.Kinds() {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			addr := serve(t, kind, to, "tcp", "127.0.0.1:0")
			transport := &http.Transport{MaxConnsPerHost: 1}
			t.Cleanup(transport.CloseIdleConnections)
			client := &http.Client{Transport: transport}
			for range 3 {
				resp, err := client.Get(fmt.Sprintf("http://%s/hello", addr))
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != http.StatusOK || string(body) != "hello world\n" {
					t.Fatalf("%s: %q, %v", resp.Status, body, err)
				}
			}
		})
	}
}

// TestRelayTwice chains two relays by a unix socket, as the measurement does, and
// ends one direction before the other.
func TestRelayTwice(t *testing.T) {
	t.Parallel()
	sink, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sink.Close() })
	go func() {
		c, err := sink.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		all, err := io.ReadAll(c)
		fmt.Fprintf(c, "%d %v", len(all), err)
	}()
	socket := filepath.Join(t.TempDir(), "middle.sock")
	serve(t, servers.Relay, sink.Addr().String(), "unix", socket)
	addr := serve(t, servers.Relay, socket, "tcp", "127.0.0.1:0")
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.CopyN(c, sampleapp.Pattern(1<<20), 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(c); err != nil || string(answer) != "1048576 <nil>" {
		t.Fatalf("%q, %v", answer, err)
	}
}

// TestNullAnswersEachHead sends three requests in one piece, and one in two.
func TestNullAnswersEachHead(t *testing.T) {
	t.Parallel()
	addr := serve(t, servers.Null, "", "tcp", "127.0.0.1:0")
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	answers := bufio.NewReader(c)
	for _, step := range []struct {
		send    string
		answers int
	}{{request + request + request, 3}, {request[:20], 0}, {request[20:], 1}} {
		if _, err := io.WriteString(c, step.send); err != nil {
			t.Fatal(err)
		}
		for range step.answers {
			resp, err := http.ReadResponse(answers, nil)
			if err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(resp.Body); err != nil || len(body) != 12 {
				t.Fatalf("%q, %v", body, err)
			}
		}
	}
}
