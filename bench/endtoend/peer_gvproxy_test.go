package endtoend_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/bench/binaries"
	"github.com/corridor-enclave/corridor/bench/process"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

// newStockHost starts an unmodified gvproxy where enclave-sim looks for its host:
// port 1024 of CID 3.
func newStockHost(t *testing.T, dir string) *process.Process {
	t.Helper()
	path, err := binaries.Build(patient(t), bin, binaries.Gvproxy)
	tapstacktest.Require(t, err, "an unmodified gvproxy", "allow the Go module proxy, to build it from bench/peers")
	if err := os.Remove(stockSocket(dir)); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err) // of one that was killed, which it does not clean up itself
	}
	p := launchPath(t, path, "-listen", "unix://"+stockSocket(dir), "-mtu", "1500", "-ssh-port", "-1")
	// It says that it listens before it does, so it is asked.
	for ctx := patient(t); ; {
		c, err := (&net.Dialer{}).DialContext(ctx, "unix", stockSocket(dir))
		if err == nil {
			c.Close()
			return p
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-p.Done():
			t.Fatalf("gvproxy ended with code %d\n%s", p.ExitCode(), p.Tail(10))
		case <-ctx.Done():
			t.Fatalf("gvproxy does not listen: %v\n%s", err, p.Tail(10))
		}
	}
}

func stockSocket(dir string) string { return filepath.Join(dir, "3_1024.sock") }

// expose asks gvproxy, over the socket that it has its link on, to publish the
// enclave's front. It returns the address outside.
func expose(t *testing.T, dir string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") // to learn a free port
	if err != nil {
		t.Fatal(err)
	}
	local := l.Addr().String()
	l.Close()
	control := &http.Client{Timeout: patience, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", stockSocket(dir))
		},
	}}
	t.Cleanup(control.CloseIdleConnections)
	resp, err := control.Post("http://host/services/forwarder/expose", "application/json",
		strings.NewReader(fmt.Sprintf(`{"local":%q,"remote":"192.168.127.2:443"}`, local)))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("gvproxy exposes nothing: %s", resp.Status)
	}
	return local
}

// TestIntegrationStockGvproxy: our enclave works with the host that everybody
// has, and gets over its restart with the app's address and routes in place.
func TestIntegrationStockGvproxy(t *testing.T) {
	requireNamespaces(t)
	c := &corridor{t: t, dir: shortTempDir(t)}
	c.host = newStockHost(t, c.dir)
	c.enclave = launch(t, "enclave-sim", "--isolate", "--vsock", "dir:"+c.dir, "--fqdn", fqdn,
		"--nsm-out", c.trust(), "--app", "http://"+appAddress, "--", filepath.Join(bin, "bench"), "app", "--listen", "tcp:"+appAddress)
	waitMessage(t, c.enclave, "link is up")
	c.address = expose(t, c.dir)
	c.client = c.newClient()
	c.untilAnswered()
	origin := outside(t)

	c.fetch(origin, 4<<20)
	if got := len(c.mustGet("/bytes?n=4194304")); got != 4<<20 {
		t.Errorf("%d bytes came out of the enclave; want 4194304", got)
	}
	t.Run("verified", func(t *testing.T) { c.verifies(t) })

	t.Run("host restarted", func(t *testing.T) {
		if err := c.host.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-c.host.Done()
		waitMessage(t, c.enclave, "link is down, trying again")
		c.host = newStockHost(t, c.dir)
		c.client.CloseIdleConnections()
		again := *c
		again.t = t
		again.address = expose(t, c.dir)
		again.client = again.newClient()
		again.untilAnswered()
		again.fetch(origin, 1<<20)
	})
	if code := c.enclave.Stop(patience); code != 0 {
		t.Errorf("exit code %d\n%s", code, c.enclave.Tail(10))
	}
}
