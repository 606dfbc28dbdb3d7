package appapi_test

import (
	"context"
	"encoding/base64"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/corridor-enclave/corridor/enclave/appapi"
)

// serve runs an API on a unix socket and on loopback until the test ends.
func serve(t *testing.T, wait bool) (api *appapi.API, url string, unix *http.Client) {
	t.Helper()
	loopback, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "s")
	socket, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	api = appapi.New(appapi.Config{
		Listeners: []net.Listener{loopback, socket}, WaitForApp: wait, Log: slog.New(slog.DiscardHandler),
		Startup: []byte("mode = 1"), Secrets: map[string][]byte{"db": []byte("pass\x00word"), "none": nil},
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- api.Run(ctx) }()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		http.DefaultClient.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v; want nil when asked to stop", err)
		}
	})
	return api, "http://" + loopback.Addr().String(), &http.Client{Transport: transport}
}

func send(t *testing.T, c *http.Client, method, url, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	good := base64.StdEncoding.EncodeToString(make([]byte, 32))
	tests := []struct {
		name, method, path, body string
		status                   int
		says                     string
	}{
		{name: "ready when nobody waits", method: "GET", path: "/enclave/ready", status: 404, says: "--wait-for-app"},
		{name: "state", method: "GET", path: "/enclave/state", status: 403, says: "not enabled"},
		{name: "set state", method: "PUT", path: "/enclave/state", body: "x", status: 403, says: "not enabled"},
		{name: "post state", method: "POST", path: "/enclave/state", status: 405},
		{name: "get hash", method: "GET", path: "/enclave/hash", status: 405},
		{name: "unknown", method: "GET", path: "/enclave/attestation", status: 404},
		{name: "configuration", method: "GET", path: "/v1/config", status: 200, says: "mode = 1"},
		{name: "set the configuration", method: "PUT", path: "/v1/config", status: 405},
		{name: "unknown secret", method: "GET", path: "/v1/secrets/x", status: 404, says: "no secret of this name"},
		{name: "no secret's name", method: "GET", path: "/v1/secrets/", status: 404},
		{name: "set a secret", method: "PUT", path: "/v1/secrets/db", status: 405},
		{name: "secret", method: "GET", path: "/v1/secrets/db", status: 200, says: "pass\x00word"},
		{name: "empty secret", method: "GET", path: "/v1/secrets/none", status: 200},
		{name: "no hash", method: "POST", path: "/enclave/hash", status: 400, says: "0 bytes instead of 32"},
		{name: "no base64", method: "POST", path: "/enclave/hash", body: "!" + good[1:], status: 400, says: "not base64"},
		{name: "hex", method: "POST", path: "/enclave/hash", body: strings.Repeat("ab", 20), status: 400, says: "instead of 32"},
		{name: "loose bits", method: "POST", path: "/enclave/hash", body: good[:42] + "B=", status: 400, says: "not base64"},
		{name: "short hash", method: "POST", path: "/enclave/hash", body: base64.StdEncoding.EncodeToString(make([]byte, 31)), status: 400, says: "31 bytes"},
		{name: "long hash", method: "POST", path: "/enclave/hash", body: base64.StdEncoding.EncodeToString(make([]byte, 33)), status: 400, says: "33 bytes"},
		{name: "endless hash", method: "POST", path: "/enclave/hash", body: strings.Repeat("A", 1<<20), status: 400, says: "more than"},
		{name: "hash", method: "POST", path: "/enclave/hash", body: good, status: 200},
		{name: "hash with a newline", method: "POST", path: "/enclave/hash", body: good + "\r\n", status: 200},
	}
	_, url, unix := serve(t, false)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for name, c := range map[string]*http.Client{"loopback": http.DefaultClient, "unix": unix} {
				status, body := send(t, c, tt.method, url+tt.path, tt.body)
				if status != tt.status || !strings.Contains(body, tt.says) {
					t.Errorf("%s: %s %s = %d %q; want %d and %q", name, tt.method, tt.path, status, body, tt.status, tt.says)
				}
			}
		})
	}
}

func TestNoConfiguration(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	api := appapi.New(appapi.Config{Listeners: []net.Listener{l}, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- api.Run(ctx) }()
	if status, body := send(t, http.DefaultClient, "GET", "http://"+l.Addr().String()+"/v1/config", ""); status != 404 || !strings.Contains(body, "--startup-port") {
		t.Errorf("%d %q", status, body)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestReadyOnce(t *testing.T) {
	t.Parallel()
	api, url, unix := serve(t, true)
	if api.Ready() {
		t.Fatal("ready before the app said so")
	}
	if status, _ := send(t, unix, "GET", url+"/enclave/ready", ""); status != http.StatusOK || !api.Ready() {
		t.Fatalf("first call = %d, Ready() = %v; want 200, true", status, api.Ready())
	}
	if status, _ := send(t, unix, "GET", url+"/enclave/ready", ""); status != http.StatusGone || !api.Ready() {
		t.Fatalf("second call = %d, Ready() = %v; want 410, true", status, api.Ready())
	}
}

// TestHashIsNeverTorn: with the race detector, setting and reading may meet, and
// a reader sees one hash or the other.
func TestHashIsNeverTorn(t *testing.T) {
	t.Parallel()
	api, url, unix := serve(t, false)
	if api.KeyHash() != [32]byte{} {
		t.Fatal("a hash before the app set one")
	}
	var setting sync.WaitGroup
	for fill := range byte(8) {
		raw := [32]byte{}
		for i := range raw {
			raw[i] = fill + 1
		}
		setting.Go(func() {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/enclave/hash",
				strings.NewReader(base64.StdEncoding.EncodeToString(raw[:])))
			if err != nil {
				t.Error(err)
				return
			}
			resp, err := unix.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
			got := api.KeyHash()
			for _, b := range got {
				if b == 0 || b != got[0] {
					t.Errorf("torn hash % x", got)
					return
				}
			}
		})
	}
	setting.Wait()
}

func TestListenerFails(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	api := appapi.New(appapi.Config{Listeners: []net.Listener{l}, Log: slog.New(slog.DiscardHandler)})
	if err := api.Run(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "appapi: serving "+l.Addr().String()) {
		t.Fatalf("Run on a closed listener = %v", err)
	}
}
