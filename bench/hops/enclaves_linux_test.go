package hops_test

import (
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corridor-enclave/corridor/bench/binaries"
	"github.com/corridor-enclave/corridor/bench/hops"
)

// TestIntegrationEnclaves: two enclaves behind one host, of which connections reach
// each in turn, and nothing is left behind.
func TestIntegrationEnclaves(t *testing.T) {
	bin := t.TempDir()
	for _, p := range []binaries.Program{binaries.Bench, binaries.EnclaveSim, binaries.Host} {
		if _, err := binaries.Build(t.Context(), bin, p); err != nil {
			t.Fatal(err)
		}
	}
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	running, err := hops.StartEnclaves(t.Context(), hops.Tools{Bin: bin}, 2)
	if err != nil {
		t.Fatal(err)
	}
	peers := map[string]bool{}
	for range 4 {
		conn, err := running.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		peers[conn.RemoteAddr().String()] = true
		// The front speaks TLS and says so to whoever does not.
		if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(conn)
		if err != nil || !strings.Contains(string(text), http.StatusText(http.StatusBadRequest)) {
			t.Errorf("%q, %v", text, err)
		}
		conn.Close()
	}
	if len(peers) != 2 || len(running.Accounts) != 4 {
		t.Errorf("connections went to %v, accounts %+v", peers, running.Accounts)
	}
	if err := running.Stop(); err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob(filepath.Join(temp, "*")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
