package foreign_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/bench/binaries"
	"github.com/corridor-enclave/corridor/bench/process"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

const (
	fqdn     = "localhost"      // the suites' clients insist on a name that they can reach
	patience = 60 * time.Second // for anything that should take a moment
)

// enclaveSim is the binary under test; TestMain sets it before any test runs.
var enclaveSim string

// TestMain is also the program that a suite starts: see adapter.
func TestMain(m *testing.M) {
	if os.Getenv(adapterServer) != "" {
		if err := adapter(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "corridor-foreign-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if enclaveSim, err = binaries.Build(context.Background(), dir, binaries.EnclaveSim); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// build builds a program of others.
func build(t *testing.T, p binaries.Program) string {
	t.Helper()
	path, err := binaries.Build(t.Context(), t.TempDir(), p)
	tapstacktest.Require(t, err, string(p), "let go download the module")
	return path
}

// installed returns the path of a program that Debian packages.
func installed(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	tapstacktest.Require(t, err, name, "make deps, as root")
	return path
}

// A front is an enclave-sim that is nothing but its front.
type front struct {
	process *process.Process
	address string // HOST:PORT
}

func startFront(ctx context.Context, binary string, args ...string) (*front, error) {
	p, err := process.Start(process.Command{Path: binary, Args: append([]string{
		"--link", "off", "--app-api", "off", "--fqdn", fqdn, "--front", "tcp:127.0.0.1:0",
	}, args...)})
	if err != nil {
		return nil, err
	}
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r, err := p.Wait(wait, func(r process.Record) bool { return r.Message() == "listening" && r.Text("part") == "front" })
	if err != nil {
		p.Kill()
		return nil, err
	}
	return &front{process: p, address: r.Text("addr")}, nil
}

// serve starts a front before an app, for as long as the test.
func serve(t *testing.T, args ...string) *front {
	t.Helper()
	f, err := startFront(t.Context(), enclaveSim, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if code := f.process.Stop(patience); code != 0 {
			t.Errorf("the front ended with %d", code)
		}
		if t.Failed() {
			t.Log(f.process.Tail(30))
		}
	})
	return f
}

// port is the port alone, as command lines want it.
func (f *front) port() string {
	_, port, _ := net.SplitHostPort(f.address)
	return port
}

// certificate fetches what TLS presents, in PEM.
func (f *front) certificate(ctx context.Context) ([]byte, error) {
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // it is what the suites are told to trust
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+f.address+"/enclave/certificates", nil)
	if err != nil {
		return nil, err
	}
	response, err := (&http.Client{Transport: transport, Timeout: patience}).Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, errors.New(response.Status)
	}
	return io.ReadAll(response.Body)
}

// trusted writes the certificate into a file, and returns its path.
func (f *front) trusted(t *testing.T) string {
	t.Helper()
	pem, err := f.certificate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "front.pem")
	if err := os.WriteFile(path, pem, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// freePort is a port of loopback that nobody uses, for servers that cannot be asked
// which they took.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// startApp starts a server of others, and waits until it accepts.
func startApp(t *testing.T, port, path string, args ...string) {
	t.Helper()
	p, err := process.Start(process.Command{Path: path, Args: args})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", "127.0.0.1:"+port)
		if err == nil {
			c.Close()
			return
		}
		select {
		case <-again.C:
		case <-p.Done():
			t.Fatalf("%s ended: %s", path, p.Tail(5))
		case <-ctx.Done():
			t.Fatal(err)
		}
	}
}

// run runs a command to its end and returns what it printed.
func run(t *testing.T, env []string, path string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}
