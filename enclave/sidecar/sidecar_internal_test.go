package sidecar

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/attestation"
	"github.com/corridor-enclave/corridor/attestation/attestationtest"
	"github.com/corridor-enclave/corridor/enclave/config"
	"github.com/corridor-enclave/corridor/enclave/supervise"
)

// A logbook keeps log records and lets a test wait for one.
type logbook struct {
	mu      sync.Mutex
	records []map[string]any
	grown   chan struct{}
}

func newLogbook() *logbook { return &logbook{grown: make(chan struct{})} }

func (b *logbook) Write(line []byte) (int, error) {
	var record map[string]any
	if err := json.NewDecoder(bytes.NewReader(line)).Decode(&record); err != nil {
		return 0, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.records = append(b.records, record)
	close(b.grown)
	b.grown = make(chan struct{})
	return len(line), nil
}

// note writes a record of the test's own.
func (b *logbook) note(msg string) { slog.New(slog.NewJSONHandler(b, nil)).Info(msg) }

// index is the place of the first record with this message or app's output.
func (b *logbook) index(msg string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.IndexFunc(b.records, func(r map[string]any) bool { return r["msg"] == msg || r["text"] == msg })
}

// wait returns the first record, past or future, that has these keys and values.
func (b *logbook) wait(t *testing.T, pairs ...string) map[string]any {
	t.Helper()
	for {
		b.mu.Lock()
		records, grown := b.records, b.grown
		b.mu.Unlock()
		for _, r := range records {
			found := true
			for i := 0; i < len(pairs); i += 2 {
				found = found && r[pairs[i]] == pairs[i+1]
			}
			if found {
				return r
			}
		}
		select {
		case <-grown:
		case <-t.Context().Done():
			t.Fatalf("no record with %q in %v", pairs, records)
		}
	}
}

// A running sidecar, of a test.
type running struct {
	log    *logbook
	module *attestationtest.Module
	stop   func() error // asks it to stop, waits, and returns Run's error
	done   <-chan struct{}
}

func start(t *testing.T, args ...string) *running {
	t.Helper()
	settings, _, err := config.Parse(config.Simulated, args, nil)
	if err != nil {
		t.Fatal(err)
	}
	book := newLogbook()
	module, err := attestationtest.NewModule(attestationtest.Options{Seed: t.Name()})
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Settings: settings, Module: module, Now: time.Now, Log: slog.New(slog.NewJSONHandler(book, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	var result error
	go func() { defer close(done); result = s.Run(ctx) }()
	r := &running{log: book, module: module, done: done, stop: func() error {
		cancel()
		<-done
		return result
	}}
	t.Cleanup(func() { _ = r.stop() })
	return r
}

func (r *running) frontAddr(t *testing.T) string {
	t.Helper()
	return r.log.wait(t, "msg", "listening", "part", "front")["addr"].(string)
}

func newClient(t *testing.T) *http.Client {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // the document is the trust
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func get(t *testing.T, c *http.Client, url string) (*http.Response, string) {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// TestWholeWay: a request reaches the app, and the document proves the very
// connection and the hash that the app has set.
func TestWholeWay(t *testing.T) {
	t.Parallel()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Method+" "+r.RequestURI+" of "+r.Host)
	}))
	t.Cleanup(app.Close)
	socket := filepath.Join(t.TempDir(), "api", "s")
	r := start(t, "--link", "off", "--fqdn", "enclave.example", "--front", "tcp:127.0.0.1:0",
		"--app", app.URL, "--app-api", "unix:"+socket, "--wait-for-app")
	base, client := "https://"+r.frontAddr(t), newClient(t)

	if resp, body := get(t, client, base+"/early"); resp.StatusCode != http.StatusServiceUnavailable {
		t.Fatalf("before the app is ready: %s %q; want 503", resp.Status, body)
	}
	asApp := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	t.Cleanup(asApp.CloseIdleConnections)
	api := &http.Client{Transport: asApp}
	hash := bytes.Repeat([]byte{7}, 32)
	resp, err := api.Post("http://app/enclave/hash", "text/plain", strings.NewReader(base64.StdEncoding.EncodeToString(hash)))
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("setting the hash: %v, %v", resp, err)
	}
	resp.Body.Close()
	if resp, body := get(t, api, "http://app/enclave/ready"); resp.StatusCode != http.StatusOK {
		t.Fatalf("being ready: %s %q", resp.Status, body)
	}
	want := "GET /a%2Fb?c=d;e of " + strings.TrimPrefix(base, "https://")
	if resp, body := get(t, client, base+"/a%2Fb?c=d;e"); resp.StatusCode != http.StatusOK || body != want {
		t.Errorf("app answered %s %q; want %q", resp.Status, body, want)
	}

	resp, body := get(t, client, base+"/enclave/attestation?nonce="+strings.Repeat("5a", 20))
	document := verify(t, r.module, resp, body)
	_, gotHash, err := attestation.ParseNitridingUserData(document.UserData)
	if err != nil || !bytes.Equal(gotHash[:], hash) {
		t.Errorf("the document holds hash %x, %v", gotHash, err)
	}
	checkEvidence(t, r.module, client, base, hash)
	if err := r.stop(); err != nil {
		t.Errorf("Run = %v", err)
	}
	if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket of the app's API is left behind: %v", err)
	}
}

// checkEvidence asks for Corridor's form without a nonce: its statement has to name
// the key of the connection and the app's hash.
func checkEvidence(t *testing.T, m *attestationtest.Module, client *http.Client, base string, hash []byte) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/enclave/attestation", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", "application/json")
	resp, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	e, err := attestation.ParseEvidence(body)
	if err != nil {
		t.Fatalf("%s %q: %v", resp.Status, body, err)
	}
	document := verify(t, m, resp, base64.StdEncoding.EncodeToString(e.Document))
	endpoint, err := attestation.EndpointOf(document)
	if err == nil {
		err = endpoint.Check(resp.TLS.PeerCertificates[0])
	}
	_, published := get(t, client, base+"/enclave/config")
	if endpoint.Config != sha256.Sum256([]byte(published)) || !bytes.Equal(document.PCRs[16], attestation.Measure([]byte(published))) {
		t.Errorf("the document does not name the configuration %q", published)
	}
	if err != nil || !bytes.Equal(endpoint.App[:], hash) || len(endpoint.Certificates) != 1 {
		t.Errorf("the statement is %+v, %v", endpoint, err)
	}
}

func verify(t *testing.T, m *attestationtest.Module, resp *http.Response, body string) *attestation.Document {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(body, "\n"))
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("attestation: %s %q, %v", resp.Status, body, err)
	}
	block, _ := pem.Decode(m.RootPEM())
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	document, err := (&attestation.Verifier{Roots: []*x509.Certificate{root}, Now: time.Now}).Verify(raw)
	if err != nil {
		t.Fatal(err)
	}
	policy, err := attestation.NewPolicy([]attestation.Accept{{PCRs: m.PCRs()}}, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := policy.Check(document, time.Now()); err != nil {
		t.Error(err)
	}
	return document
}

// TestStopWithRequestUnderWay: the request is answered before the app is asked to
// stop, and the app is gone before Run returns. The log tells the order.
func TestStopWithRequestUnderWay(t *testing.T) {
	t.Parallel()
	arrived, release := make(chan struct{}), make(chan struct{})
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-release
		_, _ = io.WriteString(w, "whole answer")
	}))
	t.Cleanup(web.Close)
	r := start(t, "--link", "off", "--tls", "off", "--front", "tcp:127.0.0.1:0", "--app", web.URL,
		"--", "sh", "-c", `trap "echo stopping; exit 0" TERM; echo waiting; while :; do sleep 0.05; done`)
	base, client := "http://"+r.frontAddr(t), newClient(t)
	r.log.wait(t, "msg", "app output", "text", "waiting")

	bodies := make(chan string, 1)
	go func() {
		resp, err := client.Get(base + "/")
		if err != nil {
			bodies <- err.Error()
			return
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		bodies <- string(body)
	}()
	<-arrived
	stopped := make(chan error, 1)
	go func() { stopped <- r.stop() }()
	r.log.wait(t, "msg", "draining")
	r.log.note("released")
	close(release)
	if body := <-bodies; body != "whole answer" {
		t.Errorf("the request under way got %q", body)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Run = %v", err)
	}
	released, stopping, ended := r.log.index("released"), r.log.index("stopping"), r.log.index("app ended")
	if released < 0 || stopping < released || ended < stopping {
		t.Errorf("released at %d, app stopping at %d, ended at %d of the log; want this order", released, stopping, ended)
	}
}

// TestAppIsDown: that the app does not answer is no failure of the sidecar.
func TestAppIsDown(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	r := start(t, "--link", "off", "--tls", "off", "--front", "tcp:127.0.0.1:0", "--app", "http://"+l.Addr().String())
	resp, body := get(t, newClient(t), "http://"+r.frontAddr(t)+"/")
	if resp.StatusCode != http.StatusBadGateway {
		t.Errorf("app down: %s %q; want 502", resp.Status, body)
	}
	if err := r.stop(); err != nil {
		t.Errorf("Run = %v", err)
	}
}

func TestBusyPort(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	addr := "tcp:" + l.Addr().String()
	s := newTestSidecar(t, "--link", "off", "--tls", "off", "--front", "tcp:127.0.0.1:0", "--front", addr, "--", "true")
	err = s.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "--front "+addr+": the address is in use") || strings.Contains(err.Error(), "\n") {
		t.Fatalf("Run = %v; want one line that names the setting", err)
	}
}

func TestSocketsThatAreInTheWay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, live, stale := filepath.Join(dir, "file"), filepath.Join(dir, "live"), filepath.Join(dir, "stale")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", live)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false)
	old.Close()
	for path, works := range map[string]bool{file: false, live: false, stale: true} {
		ls, err := listenAll(t.Context(), "app-api", []config.Endpoint{{Network: "unix", Address: path}}, listen)
		if (err == nil) != works {
			t.Errorf("listening on %s: %v; want it to work: %v", filepath.Base(path), err, works)
		}
		if err := closeAll(ls); err != nil {
			t.Error(err)
		}
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "precious" {
		t.Errorf("the file in the way became %q, %v", text, err)
	}
}

func TestMissingProgram(t *testing.T) {
	t.Parallel()
	settings, _, err := config.Parse(config.Simulated, []string{"--link", "off", "--tls", "off", "--", "no-such-program"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	module, err := attestationtest.NewModule(attestationtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Settings: settings, Module: module, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	if err == nil || s != nil || !strings.Contains(err.Error(), `"no-such-program"`) {
		t.Fatalf("New = %v, %v; want an error that names the program", s, err)
	}
}

// TestModuleFails: clients are served, documents are not, and the log says so
// once.
func TestModuleFails(t *testing.T) {
	t.Parallel()
	settings, _, err := config.Parse(config.Simulated,
		[]string{"--link", "off", "--fqdn", "a", "--front", "tcp:127.0.0.1:0"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	book := newLogbook()
	s := newSidecar(t, settings, attestationtest.Options{Fail: func(string) error { return errors.New("no device") }},
		slog.New(slog.NewJSONHandler(book, nil)))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	book.wait(t, "level", "ERROR")
	base := "https://" + book.wait(t, "msg", "listening")["addr"].(string)
	client := newClient(t)
	if resp, body := get(t, client, base+"/enclave/health"); resp.StatusCode != http.StatusOK {
		t.Errorf("health: %s %q", resp.Status, body)
	}
	for range 3 {
		resp, body := get(t, client, base+"/enclave/attestation?nonce="+strings.Repeat("00", 20))
		if resp.StatusCode != http.StatusServiceUnavailable || strings.Contains(body, "no device") {
			t.Errorf("attestation: %s %q; want 503 without the module's words", resp.Status, body)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run = %v", err)
	}
	said := 0
	for _, r := range book.records {
		if r["msg"] == "no attestation document" {
			said++
		}
	}
	if said != 1 {
		t.Errorf("the log says %d times that there is no document; want once", said)
	}
}

func TestExitOfTheApp(t *testing.T) {
	t.Parallel()
	if err := start(t, "--link", "off", "--tls", "off", "--front", "tcp:127.0.0.1:0", "--", "true").wait(); err != nil {
		t.Errorf("the app ended with 0: Run = %v; want nil", err)
	}
	err := start(t, "--link", "off", "--tls", "off", "--front", "tcp:127.0.0.1:0", "--", "sh", "-c", "exit 7").wait()
	if exit := (*supervise.ExitError)(nil); !errors.As(err, &exit) || exit.Code != 7 {
		t.Errorf("the app ended with 7: Run = %v; want an ExitError", err)
	}
}

// wait returns Run's error once it has ended by itself.
func (r *running) wait() error {
	<-r.done
	return r.stop()
}
