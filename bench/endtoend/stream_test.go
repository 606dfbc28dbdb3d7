package endtoend_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/bench/process"
	"github.com/corridor-enclave/corridor/bench/sampleapp"
)

// appPort is a VSOCK port whose streams lead to the app itself, past the front.
const appPort = 7000

// newStreamCorridor has no link at all: what passes, passes by streams.
func newStreamCorridor(t *testing.T) (c *corridor, app string) {
	t.Helper()
	requireNamespaces(t)
	c = &corridor{t: t, dir: shortTempDir(t)}
	c.host = launch(t, "host", "--vsock", "dir:"+c.dir, "--control", "unix:"+c.control(),
		"--publish", "127.0.0.1:0=stream:1443@16", "--publish", fmt.Sprintf("127.0.0.2:0=stream:%d@16", appPort))
	c.address = waitMessage(t, c.host, "published").Text("addr")
	waitMessage(t, c.host, "listening")
	for _, r := range c.host.Records() {
		if r.Message() == "published" {
			app = r.Text("addr")
		}
	}
	c.startStreamEnclave()
	c.client = c.newClient()
	c.untilAnswered()
	return c, app
}

func (c *corridor) startStreamEnclave() {
	c.t.Helper()
	c.enclave = launch(c.t, "enclave-sim", "--isolate", "--link", "off", "--vsock", "dir:"+c.dir, "--fqdn", fqdn,
		"--nsm-out", c.trust(), "--app", "http://"+appAddress, "--stream", fmt.Sprintf("%d=%s", appPort, appAddress),
		"--app-cmd", filepath.Join(bin, "bench")+" app --listen tcp:"+appAddress)
}

// seenFrom asks the app what it sees of a client with this address.
func (c *corridor) seenFrom(client string) sampleapp.Seen {
	c.t.Helper()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(client)}}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", c.address)
		},
		TLSClientConfig: &tls.Config{ServerName: fqdn, InsecureSkipVerify: true},
	}
	defer transport.CloseIdleConnections()
	status, body, err := get(patient(c.t), &http.Client{Timeout: patience, Transport: transport}, "https://"+fqdn+"/")
	if err != nil || status != http.StatusOK {
		c.t.Fatalf("%d, %v", status, err)
	}
	var seen sampleapp.Seen
	if err := json.Unmarshal([]byte(body), &seen); err != nil {
		c.t.Fatal(err)
	}
	return seen
}

func TestIntegrationStreamRoad(t *testing.T) {
	c, app := newStreamCorridor(t)

	t.Run("the app sees the client's address", func(t *testing.T) {
		if got := c.seenFrom("127.0.0.9").Header.Get("X-Forwarded-For"); got != "127.0.0.9" {
			t.Errorf("X-Forwarded-For is %q", got)
		}
	})
	t.Run("download", func(t *testing.T) {
		if got := c.mustGet(fmt.Sprintf("/bytes?n=%d", 16<<20)); len(got) != 16<<20 {
			t.Errorf("%d bytes", len(got))
		}
	})
	t.Run("verified", func(t *testing.T) { c.verifies(t) })
	t.Run("an app behind the front's back", func(t *testing.T) {
		if status, body, err := get(patient(t), http.DefaultClient, "http://"+app+"/hello"); err != nil || status != 200 || body != "hello world\n" {
			t.Errorf("%d %q %v", status, body, err)
		}
	})
	t.Run("an answer that ends its connection", func(t *testing.T) {
		conn := dialTCP(t, app)
		if _, err := io.WriteString(conn, "GET /hello HTTP/1.0\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(conn); err != nil || len(got) == 0 {
			t.Errorf("%d bytes, %v; want an answer and its end", len(got), err)
		}
	})
	t.Run("clients that misbehave", func(t *testing.T) { c.suffers(t, app) })
	t.Run("an enclave that restarts", func(t *testing.T) {
		c.enclave.Kill()
		c.client.CloseIdleConnections()
		c.startStreamEnclave()
		// Not untilAnswered: the first one that asks is held until it is there.
		if got := c.mustGet("/hello"); got != "hello world\n" {
			t.Errorf("%q", got)
		}
	})
	for _, p := range []*process.Process{c.enclave, c.host} {
		if code := p.Stop(patience); code != 0 {
			t.Errorf("exit code %d\n%s", code, p.Tail(10))
		}
	}
}

func dialTCP(t *testing.T, to string) *net.TCPConn {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(patient(t), "tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn)
}

// suffers has clients give up at each step, on both kinds of ports, while one is
// served that came before them.
func (c *corridor) suffers(t *testing.T, app string) {
	steady := dialTCP(t, app)
	for _, to := range []string{c.address, app} {
		for _, says := range []string{"", "\x16", "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"} {
			for _, end := range []func(*net.TCPConn) error{
				(*net.TCPConn).Close,
				func(conn *net.TCPConn) error { return errors.Join(conn.SetLinger(0), conn.Close()) },
				(*net.TCPConn).CloseWrite,
			} {
				conn := dialTCP(t, to)
				if _, err := io.WriteString(conn, says); err != nil {
					t.Fatal(err)
				}
				if err := end(conn); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if _, err := io.WriteString(steady, "GET /hello HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(steady); err != nil || !strings.HasSuffix(string(got), "hello world\n") {
		t.Errorf("%q, %v", got, err)
	}
	if got := c.mustGet("/hello"); got != "hello world\n" {
		t.Errorf("afterwards: %q", got)
	}
}

// TestIntegrationBothRoads: one enclave, one app, a port on each road. Without a
// CID the stream finds the enclave by its link.
func TestIntegrationBothRoads(t *testing.T) {
	c := newCorridor(t)
	link := c.mustGet("/hello")
	c.host.Kill()
	c.client.CloseIdleConnections()
	c.host = launch(t, "host", "--vsock", "dir:"+c.dir, "--control", "unix:"+c.control(), "--publish", "127.0.0.1:0=stream:1443")
	c.address = waitMessage(t, c.host, "published").Text("addr")
	if stream := c.mustGet("/hello"); stream != link {
		t.Errorf("%q by the link, %q by a stream", link, stream)
	}
	if got := c.seenFrom("127.0.0.7").Header.Get("X-Forwarded-For"); got != "127.0.0.7" {
		t.Errorf("X-Forwarded-For is %q", got)
	}
}
