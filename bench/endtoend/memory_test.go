package endtoend_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/corridor-enclave/corridor/bench/process"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

const (
	// maxIdle connections are opened, or at least minIdle if there are no files
	// for more.
	maxIdle, minIdle = 10000, 5000
	// hostPerConn and enclavePerConn are what the two README.md promise, in bytes.
	// relayPerConn is of ports that lead to an app that is no HTTP server.
	hostPerConn, enclavePerConn, relayPerConn = 12 << 10, 24 << 10, 12 << 10
)

// idleConnections is how many connections host can have here: each takes two files.
func idleConnections(t *testing.T) int64 {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	n := min(maxIdle, (int64(min(limit.Max, 1<<20))-1000)/2)
	if n < minIdle {
		tapstacktest.Require(t, fmt.Errorf("only %d", limit.Max), "files for thousands of connections", "ulimit -Hn 21000")
	}
	return n
}

// memory is what the process has of its own, in bytes (proc_pid_status(5), RssAnon).
func memory(t *testing.T, p *process.Process) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(text), " kB"), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatal("the kernel does not tell RssAnon")
	return 0
}

// TestIntegrationMemoryOfIdleConnections: what a connection costs on which nothing
// moves any more, after its first request.
func TestIntegrationMemoryOfIdleConnections(t *testing.T) {
	idle := idleConnections(t)
	c := &corridor{t: t, dir: shortTempDir(t)}
	c.host = launch(t, "host", "--vsock", "dir:"+c.dir, "--control", "off", "--publish", "127.0.0.1:0=stream:1443@16")
	c.address = waitMessage(t, c.host, "published").Text("addr")
	c.enclave = launch(t, "enclave-sim", "--link", "off", "--tls", "off", "--vsock", "dir:"+c.dir, "--front", "vsock:1443")
	waitMessage(t, c.enclave, "running")
	c.grow(idle, enclavePerConn, func() { asks(t, c.address) })
}

// TestIntegrationMemoryOfIdleStreams is the same for an app that is no HTTP server.
func TestIntegrationMemoryOfIdleStreams(t *testing.T) {
	idle := idleConnections(t)
	app := keeper(t)
	c := &corridor{t: t, dir: shortTempDir(t)}
	c.host = launch(t, "host", "--vsock", "dir:"+c.dir, "--control", "off", "--publish", "127.0.0.1:0=stream:5432@16")
	c.address = waitMessage(t, c.host, "published").Text("addr")
	c.enclave = launch(t, "enclave-sim", "--link", "off", "--tls", "off", "--vsock", "dir:"+c.dir, "--front", "vsock:1443", "--stream", "5432="+app)
	waitMessage(t, c.enclave, "running")
	c.grow(idle, relayPerConn, func() { says(t, c.address) })
}

// grow opens connections and compares what the two ends need for them with what is
// promised.
func (c *corridor) grow(idle, enclavePromise int64, open func()) {
	c.t.Helper()
	open()
	beforeHost, beforeEnclave := memory(c.t, c.host), memory(c.t, c.enclave)
	for range idle {
		open()
	}
	for _, tt := range []struct {
		name           string
		grown, promise int64
	}{
		{"host", memory(c.t, c.host) - beforeHost, hostPerConn},
		{"enclave", memory(c.t, c.enclave) - beforeEnclave, enclavePromise},
	} {
		c.t.Logf("%s: %d bytes for each of %d connections", tt.name, tt.grown/idle, idle)
		if tt.grown > tt.promise*idle {
			c.t.Errorf("%s: %d bytes for each connection, at most %d are promised", tt.name, tt.grown/idle, tt.promise)
		}
	}
}

// keeper is an app that answers a byte with a byte and keeps the connection. It
// returns where.
func keeper(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				b := make([]byte, 1)
				for { // not io.Copy, which would keep a pipe for each
					if _, err := io.ReadFull(conn, b); err != nil {
						return // the enclave has ended it
					}
					if _, err := conn.Write(b); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		serving.Wait()
	})
	return l.Addr().String()
}

// says has a byte answered on a connection that stays until the test ends.
func says(t *testing.T, to string) {
	t.Helper()
	conn := dialTCP(t, to)
	b := []byte("x")
	if _, err := conn.Write(b); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, b); err != nil {
		t.Fatal(err)
	}
}

// asks has a request answered on a connection that stays until the test ends.
func asks(t *testing.T, to string) {
	t.Helper()
	conn := dialTCP(t, to)
	if _, err := io.WriteString(conn, "GET /enclave/health HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReaderSize(conn, 512), nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%v, %v", resp, err)
	}
	resp.Body.Close()
}
