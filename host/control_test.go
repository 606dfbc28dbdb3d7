package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corridor-enclave/corridor/tapstack/simvsock"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
	"github.com/corridor-enclave/corridor/tapstack/telemetry"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// ask gets one page of the control address.
func ask(t *testing.T, socket, path string) (int, string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://host" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// TestWhatAnEnclaveTells: it comes in by VSOCK and goes out by the control address.
func TestWhatAnEnclaveTells(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	dir, log := t.TempDir(), make(records, 256)
	socket := filepath.Join(dir, "c.sock")
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"--vsock", "dir:" + dir, "--publish", "127.0.0.1:0=stream:1443@16", "--control", "unix:" + socket, "--observe", "unix:" + socket + ".look"}, nil, io.Discard, log)
	}()
	for log.await(t, "listening")["part"] != "telemetry" {
	}
	transport, err := simvsock.Dir(dir, 16)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := transport.Dial(ctx, vsockconn.Addr{CID: vsockconn.CIDParent, Port: telemetry.Port})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	told := tapstacktest.Vector(t, "../tapstack/testdata/telemetry-metrics.hex")
	if _, err := conn.Write(telemetry.Event{Code: telemetry.Serving}.Append(told)); err != nil {
		t.Fatal(err)
	}
	if m := log.await(t, "enclave event"); m["cid"] != 16.0 || m["event"] != "serving" {
		t.Errorf("the log says %v", m)
	}
	status, page := ask(t, socket, "/metrics")
	for _, want := range []string{
		`corridor_enclave_requests_total{cid="16"} 7`, `corridor_enclave_heard{cid="16"} 1`,
		`corridor_published_connections{addr="127.0.0.1:`, "corridor_streams_connected_total 0", "go_goroutines ",
	} {
		if status != http.StatusOK || !strings.Contains(page, "\n"+want) {
			t.Errorf("status %d, and the page lacks %q:\n%s", status, want, page)
		}
	}
	for path, want := range map[string]string{
		"/": "<title>Corridor host</title>", "/v1/status": `"cid":16`, "/healthz": "alive", "/readyz": "ready", "/services/forwarder/all": `"vsock:16:1443"`,
	} {
		if status, text := ask(t, socket, path); status != http.StatusOK || !strings.Contains(text, want) {
			t.Errorf("%s: %d %s, want %q", path, status, text, want)
		}
	}
	for path, want := range map[string]int{
		"/": 200, "/metrics": 200, "/v1/status": 200, "/healthz": 200, "/readyz": 200,
		"/services/forwarder/all": 404, "/v1/config": 404, "/v1/enclaves": 404,
	} {
		if status, _ := ask(t, socket+".look", path); status != want {
			t.Errorf("%s where one may only look: %d, want %d", path, status, want)
		}
	}
	stop()
	if got := <-code; got != exitStopped {
		t.Errorf("exit code %d", got)
	}
}
