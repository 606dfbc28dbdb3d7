package endtoend_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/bench/binaries"
	"github.com/corridor-enclave/corridor/bench/process"
	"github.com/corridor-enclave/corridor/bench/sampleapp"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

// A stockEnclave is a namespace with an unmodified gvforwarder, which gets its
// address by DHCP as it does in a virtual machine, and an app.
type stockEnclave struct {
	t         *testing.T
	dir       string // of the simulated VSOCK
	namespace *process.Namespace
	host      *process.Process
	forwarder *process.Process
	address   string // the published port
	client    *http.Client
}

func newStockEnclave(t *testing.T) *stockEnclave {
	t.Helper()
	requireNamespaces(t)
	_, err := exec.LookPath("busybox")
	tapstacktest.Require(t, err, "a DHCP client, which gvforwarder starts", "install the package busybox")
	path, err := binaries.Build(patient(t), bin, binaries.Gvforwarder)
	tapstacktest.Require(t, err, "an unmodified gvforwarder", "allow the Go module proxy, to build it from bench/peers")
	n, err := process.NewNamespace()
	tapstacktest.Require(t, err, "a network namespace of its own", "run as root")
	t.Cleanup(func() { n.Close() })

	e := &stockEnclave{t: t, dir: shortTempDir(t), namespace: n}
	e.startHost("127.0.0.1:0")
	e.launchInside(filepath.Join(bin, "bench"), "app", "--listen", "tcp:0.0.0.0:8081")
	e.forwarder = e.launchInside(path, "-url", "unix://"+filepath.Join(e.dir, "3_1024.sock"), "-stop-if-exist", "")
	e.client = &http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", e.address)
		},
	}}
	return e
}

func (e *stockEnclave) startHost(publish string) {
	e.t.Helper()
	e.host = launch(e.t, "host", "--vsock", "dir:"+e.dir, "--control", "unix:"+filepath.Join(e.dir, "control.sock"),
		"--publish", publish+"=link:8081", "--host-loopback", "on")
	e.address = waitMessage(e.t, e.host, "published").Text("addr")
}

// launchInside starts a program in the namespace.
func (e *stockEnclave) launchInside(path string, args ...string) *process.Process {
	e.t.Helper()
	p, err := process.Start(process.Command{
		Path: path, Args: args, Namespace: e.namespace, Contained: true,
		Env: append(slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "PATH=") }),
			"PATH="+e.dhcpClient()+":"+os.Getenv("PATH")),
	})
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() {
		p.Kill()
		if e.t.Failed() {
			e.t.Logf("%s", p.Tail(30))
		}
	})
	return p
}

// dhcpClient returns a folder with a udhcpc, the client that gvforwarder looks
// for first. Its script sets address and route, and leaves resolv.conf alone,
// which belongs to the machine.
func (e *stockEnclave) dhcpClient() string {
	e.t.Helper()
	dir := filepath.Join(e.dir, "bin")
	script := filepath.Join(dir, "bound")
	for path, text := range map[string]string{
		filepath.Join(dir, "udhcpc"): "#!/bin/sh\nexec busybox udhcpc -s " + script + " \"$@\"\n",
		script: "#!/bin/sh\n[ \"$1\" = bound ] || exit 0\n" +
			"ip addr add \"$ip/24\" dev \"$interface\" && ip route add default via \"$router\"\n",
	} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			e.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			e.t.Fatal(err)
		}
	}
	return dir
}

// untilAnswered waits for the first request that passes.
func (e *stockEnclave) untilAnswered() {
	e.t.Helper()
	for ctx := patient(e.t); ; {
		status, body, err := get(ctx, e.client, "http://app/hello")
		if err == nil && status == http.StatusOK {
			return
		}
		select {
		case <-ctx.Done():
			e.t.Fatalf("no answer: %d %q %v\n%s%s", status, body, err, e.host.Tail(10), e.forwarder.Tail(10))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// fetch lets the app download n bytes from outside.
func (e *stockEnclave) fetch(origin string, n int64) {
	e.t.Helper()
	source := url.QueryEscape(fmt.Sprintf("http://%s/bytes?n=%d", origin, n))
	status, body, err := get(patient(e.t), e.client, "http://app/fetch?url="+source)
	var got sampleapp.Fetched
	if err != nil || status != http.StatusOK || json.Unmarshal([]byte(body), &got) != nil {
		e.t.Fatalf("fetch: %d %.200q %v", status, body, err)
	}
	if got.Bytes != n || got.SHA256 != sampleapp.PatternSHA256(n) {
		e.t.Fatalf("%d bytes with SHA-256 %s, want %d as sent", got.Bytes, got.SHA256, n)
	}
}

// resolve asks the gateway's DNS from inside.
func (e *stockEnclave) resolve(name string) ([]string, error) {
	r := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (conn net.Conn, err error) {
		err = e.namespace.Do(func() error {
			conn, err = net.Dial("udp", "192.168.127.1:53")
			return err
		})
		return conn, err
	}}
	return r.LookupHost(patient(e.t), name)
}

// control asks the host's API.
func (e *stockEnclave) control(path string) string {
	e.t.Helper()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(e.dir, "control.sock"))
		},
	}}
	status, body, err := get(patient(e.t), client, "http://host"+path)
	if err != nil || status != http.StatusOK {
		e.t.Fatalf("GET %s: %d %q %v", path, status, body, err)
	}
	return strings.TrimSpace(body)
}

// TestIntegrationStockGvforwarder: our host works with the enclave's half that
// everybody has: DHCP, DNS, a published port, egress, and a restart of the host.
func TestIntegrationStockGvforwarder(t *testing.T) {
	e := newStockEnclave(t)
	e.untilAnswered()

	want := `{"192.168.127.1":"5a:94:ef:e4:0c:dd","192.168.127.2":"5a:94:ef:e4:0c:ee"}`
	if got := e.control("/leases"); got != want {
		t.Errorf("leases %s, want %s", got, want)
	}
	if got, err := e.resolve("host.containers.internal"); err != nil || !slices.Equal(got, []string{"192.168.127.254"}) {
		t.Errorf("host.containers.internal is %v, %v", got, err)
	}
	if _, body, err := get(patient(t), e.client, "http://app/bytes?n=4194304"); err != nil || len(body) != 4<<20 {
		t.Errorf("%d bytes came out of the enclave, %v; want 4194304", len(body), err)
	}
	origin := outside(t)
	e.fetch(origin, 4<<20)
	var stats struct {
		Corridor struct {
			Link struct{ Drops map[string]int }
		}
	}
	if err := json.Unmarshal([]byte(e.control("/stats")), &stats); err != nil {
		t.Fatal(err)
	}
	for _, cause := range []string{"QueueFull", "Malformed", "InFlight"} {
		if n, ok := stats.Corridor.Link.Drops[cause]; !ok || n != 0 {
			t.Errorf("drops %v, want no %s", stats.Corridor.Link.Drops, cause)
		}
	}

	if err := e.host.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-e.host.Done()
	e.startHost(e.address)
	e.untilAnswered()
	e.fetch(origin, 1<<20)
	if code := e.host.Stop(patience); code != 0 {
		t.Errorf("exit code %d\n%s", code, e.host.Tail(10))
	}
}
