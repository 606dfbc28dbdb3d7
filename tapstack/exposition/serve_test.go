package exposition_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/corridor-enclave/corridor/tapstack/exposition"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestServeProcess(t *testing.T) {
	t.Parallel()
	if _, err := exposition.ServeProcess(filepath.Join(t.TempDir(), "missing", "s")); err == nil {
		t.Error("it listens in a folder that is not there")
	}
	nothing, err := exposition.ServeProcess("")
	if err != nil {
		t.Fatal(err)
	}
	nothing()

	socket := filepath.Join(t.TempDir(), "s")
	stop, err := exposition.ServeProcess(socket)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	client := &http.Client{Transport: transport}
	answer, err := client.Get("http://process/")
	if err != nil {
		t.Fatal(err)
	}
	page, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	if err != nil || !strings.Contains(string(page), "corridor_process_allocations_total ") {
		t.Errorf("%q, %v", page, err)
	}
	stop()
	if _, err := client.Get("http://process/"); err == nil {
		t.Error("it goes on after stop")
	}
}
