package endtoend_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/bench/sampleapp"
	"github.com/corridor-enclave/corridor/bench/servers"
)

// hostName is what an enclave calls the host's loopback, if it may reach that.
const hostName = "host.containers.internal"

// An outsideTLS is a server outside that counts what connections cost.
type outsideTLS struct {
	port       string
	roots      string // file
	handshakes atomic.Int64
}

func newOutsideTLS(t *testing.T, dir string) *outsideTLS {
	t.Helper()
	certificate, key, err := servers.SelfSigned(hostName)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	o := &outsideTLS{roots: filepath.Join(dir, "roots.pem")}
	if err := os.WriteFile(o.roots, certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(sampleapp.New())
	s.TLS = &tls.Config{
		Certificates: []tls.Certificate{pair},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			o.handshakes.Add(1)
			return nil, nil
		},
	}
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	s.StartTLS()
	t.Cleanup(s.Close)
	_, o.port, _ = net.SplitHostPort(s.Listener.Addr().String())
	return o
}

// ways are where a test speaks as the app would, from outside: streams lead it to
// the loopback of the enclave.
type ways struct{ socks, connect, proxy string }

// newEgressCorridor has no link unless asked for one. The host lets the enclave reach its loopback, and
// the enclave lets itself reach one name on one port.
//
// far is the folder in which the enclave looks for VSOCK: dir, unless there is
// something between the two.
func newEgressCorridor(t *testing.T, o *outsideTLS, dir, far string, enclaveArgs ...string) (*corridor, ways) {
	t.Helper()
	c := &corridor{t: t, dir: dir}
	publish := func(port int) string { return fmt.Sprintf("127.0.0.%d:0=stream:%d@16", port-7000+1, port) }
	c.host = launch(t, "host", "--vsock", "dir:"+dir, "--control", "off", "--host-loopback", "on", "--egress-deny", "denied.example",
		"--publish", publish(7001), "--publish", publish(7002), "--publish", publish(7003))
	if enclaveArgs == nil {
		enclaveArgs = []string{"--link", "off"}
	}
	c.enclave = launch(t, "enclave-sim", append(enclaveArgs, "--isolate", "--vsock", "dir:"+far, "--fqdn", fqdn,
		"--stream", "7001=127.0.0.1:1080", "--stream", "7002=127.0.0.1:3128", "--stream", "7003=127.0.0.1:3129",
		"--socks", "127.0.0.1:1080", "--http-connect", "127.0.0.1:3128", "--egress-proxy", "127.0.0.1:3129", "--egress-roots", o.roots,
		"--egress-allow", hostName+":"+o.port, "--egress-allow", "denied.example:1-65535")...)
	waitMessage(t, c.enclave, "running")
	waitMessage(t, c.host, "listening")
	var w ways
	for _, r := range c.host.Records() {
		if r.Message() != "published" {
			continue
		}
		switch at := r.Text("addr"); {
		case strings.HasPrefix(at, "127.0.0.2:"):
			w.socks = at
		case strings.HasPrefix(at, "127.0.0.3:"):
			w.connect = at
		case strings.HasPrefix(at, "127.0.0.4:"):
			w.proxy = at
		}
	}
	return c, w
}

// socksTo asks for a name at a port, and returns the code of the reply.
func socksTo(t *testing.T, at, name string, port uint16) (*net.TCPConn, byte) {
	t.Helper()
	conn := dialTCP(t, at)
	return conn, socksOn(t, conn, name, port)
}

// socksOn is socksTo on a connection that is there.
func socksOn(t *testing.T, conn net.Conn, name string, port uint16) byte {
	t.Helper()
	ask := append([]byte{5, 1, 0, 5, 1, 0, 3, byte(len(name))}, name...)
	if _, err := conn.Write(append(ask, byte(port>>8), byte(port))); err != nil {
		t.Fatal(err)
	}
	reply := make([]byte, 12)
	if _, err := io.ReadFull(conn, reply); err != nil {
		t.Fatal(err)
	}
	return reply[3]
}

func TestIntegrationEgress(t *testing.T) {
	requireNamespaces(t)
	dir := shortTempDir(t)
	o := newOutsideTLS(t, dir)
	c, w := newEgressCorridor(t, o, dir, dir)
	var port uint16
	if _, err := fmt.Sscan(o.port, &port); err != nil {
		t.Fatal(err)
	}

	t.Run("what the enclave refuses, the host is not asked for", func(t *testing.T) {
		for _, name := range []string{"127.0.0.1", "169.254.169.254", "localhost", "elsewhere.example"} {
			if _, code := socksTo(t, w.socks, name, port); code != 2 {
				t.Errorf("%s: code %d, want 2, not allowed", name, code)
			}
		}
		if _, code := socksTo(t, w.socks, hostName, port+1); code != 2 {
			t.Errorf("another port: code %d, want 2", code)
		}
	})
	t.Run("what the host refuses", func(t *testing.T) {
		if _, code := socksTo(t, w.socks, "denied.example", 443); code != 2 {
			t.Errorf("code %d, want 2, not allowed", code)
		}
	})
	t.Run("SOCKS", func(t *testing.T) {
		conn, code := socksTo(t, w.socks, hostName, port)
		if code != 0 {
			t.Fatalf("code %d", code)
		}
		asksHello(t, conn)
	})
	t.Run("CONNECT", func(t *testing.T) {
		conn := dialTCP(t, w.connect)
		if _, err := fmt.Fprintf(conn, "CONNECT %s:%s HTTP/1.1\r\nHost: x\r\n\r\n", hostName, o.port); err != nil {
			t.Fatal(err)
		}
		const yes = "HTTP/1.1 200 Connected\r\n\r\n"
		got := make([]byte, len(yes))
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != yes {
			t.Fatalf("%q, %v", got, err)
		}
		asksHello(t, conn)
	})
	t.Run("handshakes are paid once", func(t *testing.T) { paysOnce(t, o, w.proxy) })
	t.Run("asked to stop", func(t *testing.T) {
		if code := c.enclave.Stop(patience); code != 0 {
			t.Errorf("exit code %d\n%s", code, c.enclave.Tail(10))
		}
		if code := c.host.Stop(patience); code != 0 {
			t.Errorf("exit code %d\n%s", code, c.host.Tail(10))
		}
	})
}

// TestIntegrationEgressByLink takes the other road to the same place: here the
// enclave's own kernel resolves and connects, and the app notices nothing.
func TestIntegrationEgressByLink(t *testing.T) {
	requireNamespaces(t)
	dir := shortTempDir(t)
	o := newOutsideTLS(t, dir)
	c, w := newEgressCorridor(t, o, dir, dir, "--link", "on", "--egress-road", "link", "--egress-allow", "127.0.0.0/8")
	waitMessage(t, c.enclave, "link is up")
	var port uint16
	if _, err := fmt.Sscan(o.port, &port); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"127.0.0.1", "elsewhere.example"} {
		conn, code := socksTo(t, w.socks, name, port)
		conn.Close() // or the enclave would wait for it in the end
		if code != 2 {
			t.Errorf("%s: code %d, want 2, not allowed", name, code)
		}
	}
	conn, code := socksTo(t, w.socks, hostName, port)
	if code != 0 {
		t.Fatalf("code %d", code)
	}
	asksHello(t, conn)
	conn.Close()
	paysOnce(t, o, w.proxy)
	if code := c.enclave.Stop(patience); code != 0 {
		t.Errorf("exit code %d\n%s", code, c.enclave.Tail(10))
	}
}

// asksHello speaks TLS through the connection, as the app would.
func asksHello(t *testing.T, conn net.Conn) {
	t.Helper()
	s := tls.Client(conn, &tls.Config{ServerName: hostName, InsecureSkipVerify: true})
	if _, err := io.WriteString(s, "GET /hello HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(s); err != nil || !strings.HasSuffix(string(got), "hello world\n") {
		t.Errorf("%q, %v", got, err)
	}
}

// paysOnce asks many times, each time over a connection of its own to the proxy.
func paysOnce(t *testing.T, o *outsideTLS, proxy string) {
	t.Helper()
	before := o.handshakes.Load()
	for range requests {
		askProxy(t, o, proxy)
	}
	if n := o.handshakes.Load() - before; n != 1 {
		t.Errorf("%d handshakes for %d requests", n, requests)
	}
}

// requests are those of one way out.
const requests = 20

func askProxy(t *testing.T, o *outsideTLS, proxy string) {
	t.Helper()
	req, err := http.NewRequestWithContext(patient(t), http.MethodGet, "http://"+proxy+"/hello", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host, req.Close = hostName+".corridor:"+o.port, true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK || string(body) != "hello world\n" {
		t.Fatalf("%d %q %v", resp.StatusCode, body, err)
	}
}

// TestIntegrationEgressFarAway puts a line of 20 ms between the ends, and counts
// what an app pays that connects anew for each request, and one that leaves that
// to the proxy. With -v it tells the rates, which depend on the machine.
func TestIntegrationEgressFarAway(t *testing.T) {
	requireNamespaces(t)
	dir, far := shortTempDir(t), shortTempDir(t)
	o := newOutsideTLS(t, dir)
	for _, l := range []struct{ line, listen, dial string }{
		{"delay=20ms", far + "/3_1025.sock", dir + "/3_1025.sock"},
		{"delay=0", dir + "/16_7001.sock", far + "/16_7001.sock"},
		{"delay=0", dir + "/16_7003.sock", far + "/16_7003.sock"},
	} {
		waitMessage(t, launch(t, "bench", "impair", "--line", l.line, "--listen", "unix:"+l.listen, "--dial", "unix:"+l.dial), "listening")
	}
	_, w := newEgressCorridor(t, o, dir, far)
	var port uint16
	if _, err := fmt.Sscan(o.port, &port); err != nil {
		t.Fatal(err)
	}
	begin, before := time.Now(), o.handshakes.Load()
	for range requests {
		conn, code := socksTo(t, w.socks, hostName, port)
		if code != 0 {
			t.Fatalf("code %d", code)
		}
		asksHello(t, conn)
		conn.Close()
	}
	without := time.Since(begin)
	if n := o.handshakes.Load() - before; n != requests {
		t.Errorf("%d handshakes for %d connections", n, requests)
	}
	begin = time.Now()
	paysOnce(t, o, w.proxy)
	with := time.Since(begin)
	t.Logf("requests a second, one after the other: %.1f with a connection for each, %.1f by the proxy", requests/without.Seconds(), requests/with.Seconds())
}
