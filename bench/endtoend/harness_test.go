package endtoend_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/bench/binaries"
	"github.com/corridor-enclave/corridor/bench/process"
	"github.com/corridor-enclave/corridor/bench/sampleapp"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

const (
	fqdn       = "test.corridor.example"
	appAddress = "127.0.0.1:8081" // in the enclave's own namespace
	patience   = 60 * time.Second // for anything that should take a moment
)

// bin is the folder of the binaries; TestMain sets it before any test runs.
var bin string

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

// runTests builds the binaries once for all tests, as `make build` does.
func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "corridor-endtoend-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	bin = dir
	for _, p := range []binaries.Program{binaries.Host, binaries.EnclaveSim, binaries.Attest, binaries.Bench} {
		if _, err := binaries.Build(context.Background(), dir, p); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return m.Run()
}

func patient(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// launch starts one of the binaries, kills it when the test ends, and shows its
// last lines when the test failed.
func launch(t *testing.T, name string, args ...string) *process.Process {
	t.Helper()
	return launchPath(t, filepath.Join(bin, name), args...)
}

func launchPath(t *testing.T, path string, args ...string) *process.Process {
	t.Helper()
	p, err := process.Start(process.Command{Path: path, Args: args})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("%s", p.Tail(30))
		}
	})
	return p
}

func waitMessage(t *testing.T, p *process.Process, msg string) process.Record {
	t.Helper()
	r, err := p.WaitMessage(patient(t), msg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A corridor is both ends with an app behind them.
type corridor struct {
	t       *testing.T
	dir     string // of the simulated VSOCK
	host    *process.Process
	enclave *process.Process
	address string // where clients connect
	client  *http.Client
}

// requireNamespaces skips, with the remedy, where the enclave cannot be simulated.
func requireNamespaces(t *testing.T) {
	t.Helper()
	tun, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	tapstacktest.Require(t, err, "a TAP device", "load the tun module and run as root")
	if err == nil {
		tun.Close()
	}
	if os.Geteuid() != 0 {
		tapstacktest.Require(t, errors.New("not root"), "network namespaces with a TAP device", "run as root")
	}
}

// newCorridor starts host and enclave-sim and waits until a request passes.
func newCorridor(t *testing.T, enclaveArgs ...string) *corridor {
	t.Helper()
	requireNamespaces(t)
	c := &corridor{t: t, dir: shortTempDir(t)}
	c.startHost("127.0.0.1:0")
	c.startEnclave(enclaveArgs...)
	waitMessage(t, c.enclave, "link is up")
	c.untilAnswered()
	return c
}

func (c *corridor) startHost(publish string) {
	c.t.Helper()
	c.host = launch(c.t, "host", "--vsock", "dir:"+c.dir, "--control", "unix:"+c.control(),
		"--publish", publish+"=link:443", "--host-loopback", "on")
	c.address = waitMessage(c.t, c.host, "published").Text("addr")
}

func (c *corridor) control() string { return filepath.Join(c.dir, "control.sock") }
func (c *corridor) trust() string   { return filepath.Join(c.dir, "trust") }

// shortTempDir is a folder whose name leaves room in a unix socket's path, which
// t.TempDir with a long test name may not.
func shortTempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "corridor-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// newClient dials the published port whatever the URL says. Whether the
// certificate is worth anything is the business of the attestation tests.
func (c *corridor) newClient() *http.Client {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", c.address)
		},
		TLSClientConfig: &tls.Config{ServerName: fqdn, InsecureSkipVerify: true},
	}
	c.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Timeout: patience, Transport: transport}
}

func (c *corridor) untilAnswered() {
	c.t.Helper()
	ctx := patient(c.t)
	for {
		status, body, err := get(ctx, c.client, "https://"+fqdn+"/hello")
		if err == nil && status == http.StatusOK {
			return
		}
		select {
		case <-ctx.Done():
			c.t.Fatalf("no answer: %d %q %v\n%s%s", status, body, err, c.host.Tail(10), c.enclave.Tail(10))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// get returns status and body, the latter bounded.
func get(ctx context.Context, client *http.Client, url string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	return resp.StatusCode, string(body), err
}

func (c *corridor) mustGet(path string) string {
	c.t.Helper()
	status, body, err := get(patient(c.t), c.client, "https://"+fqdn+path)
	if err != nil || status != http.StatusOK {
		c.t.Fatalf("GET %s: %d %.200q %v", path, status, body, err)
	}
	return body
}

// outside starts a server outside the enclave and returns its address as the
// enclave has to name it.
func outside(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: sampleapp.New(), ReadHeaderTimeout: patience}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l)
	}()
	t.Cleanup(func() { srv.Close(); <-done })
	return fmt.Sprintf("192.168.127.254:%d", l.Addr().(*net.TCPAddr).Port)
}
