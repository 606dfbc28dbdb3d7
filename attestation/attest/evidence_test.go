package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/attestation"
	"github.com/corridor-enclave/corridor/attestation/attestationtest"
	"github.com/corridor-enclave/corridor/attestation/client/clienttest"
	"github.com/corridor-enclave/corridor/attestation/findings"
)

// corridor starts an enclave that speaks Corridor's form, and returns the flags
// that accept it.
func corridor(t testing.TB, o attestationtest.Options) (e *clienttest.Enclave, flags []string) {
	t.Helper()
	e = clienttest.New(t, o)
	dir := t.TempDir()
	root, policy := filepath.Join(dir, "root.pem"), filepath.Join(dir, "policy.toml")
	for name, content := range map[string][]byte{root: e.Module.RootPEM(), policy: e.Module.PolicyTOML()} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return e, []string{"--root", root, "--policy", policy}
}

func TestVerifyEvidence(t *testing.T) {
	t.Parallel()
	e, flags := corridor(t, attestationtest.Options{Seed: "test"})
	got := attest(t, "", append([]string{"verify", e.URL}, flags...)...)
	got.wants(t, exitVerified, "leaf 0 of 1 in the document's tree", "the document names this TLS connection, and its key", "\nverified\n")
	var r findings.Report
	if err := json.Unmarshal([]byte(attest(t, "", append([]string{"verify", e.URL, "--json"}, flags...)...).stdout), &r); err != nil || !r.Verified {
		t.Errorf("JSON: %v, %+v", err, r)
	}
}

func TestVerifyRefusesEvidence(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		lie  func(*attestation.Evidence)
		code int
		want string
	}{
		{"no proof", func(e *attestation.Evidence) { e.Proof = nil }, exitNotFresh, "FAIL  nonce        no proof leads"},
		{"another leaf", func(e *attestation.Evidence) { e.Proof.Index = 1 }, exitNotFresh, "FAIL  nonce        leaf 1 of a tree of 1"},
		{"another connection", func(e *attestation.Evidence) { e.Proof.Exporter[0] ^= 1 }, exitNotThisConnection, "FAIL  key binding  the enclave has seen another TLS connection"},
		{"no document", func(e *attestation.Evidence) { e.Document = nil }, exitNotGenuine, "FAIL  document"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e, flags := corridor(t, attestationtest.Options{Seed: "test"})
			e.Lie = tt.lie
			attest(t, "", append([]string{"verify", e.URL}, flags...)...).wants(t, tt.code, tt.want)
		})
	}
}

// What fetch writes, decode reads, in either form.
func TestFetch(t *testing.T) {
	t.Parallel()
	e, _ := corridor(t, attestationtest.Options{Seed: "test"})
	attest(t, "", "fetch", e.URL, "--nonce", "abc").wants(t, exitUsage, "is not 16 to 64 bytes")
	attest(t, "", "fetch", "http://h").wants(t, exitUsage, "not a URL of the form https://")
	attest(t, "", "fetch", "https://"+closedAddr(t)).wants(t, exitNotDone, "connect")
	attest(t, "", "fetch", e.URL, "--out", t.TempDir()).wants(t, exitNotDone, "is a directory")
	out := filepath.Join(t.TempDir(), "evidence.json")
	attest(t, "", "fetch", e.URL, "--nonce", strings.Repeat("ab", 20), "--out", out).wants(t, exitVerified, "not verified")
	attest(t, "", "decode", out).wants(t, exitVerified, "purpose      batch", "tree         1 nonces", "key          ")
	kept := attest(t, "", "fetch", e.URL)
	kept.wants(t, exitVerified, `{"version":1,"document":"`)
	attest(t, kept.stdout, "decode", "-").wants(t, exitVerified, "purpose      client")
	attest(t, "{}", "decode", "-").wants(t, exitNotGenuine, "version 0")

	nitriding := newEnclave(t, attestationtest.Options{Seed: "test"})
	text := attest(t, "", "fetch", nitriding.server.URL, "--nonce", strings.Repeat("ab", 20))
	attest(t, text.stdout, "decode", "-").wants(t, exitVerified, "SHA-256 of a certificate")
}

func TestPolicyCommand(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	digest := strings.Repeat("a", 96)
	attest(t, "", "policy").wants(t, exitUsage, "0 files")
	attest(t, "", "policy", filepath.Join(dir, "missing")).wants(t, exitUsage, "no such file")
	attest(t, "", "policy", write("empty.toml", "")).wants(t, exitUsage, "nothing would be accepted")
	attest(t, "", "policy", write("debug.toml", "[[accept]]\n[accept.pcrs]\n0 = \""+strings.Repeat("0", 96)+"\"\n")).wants(t, exitUsage, "debug mode")
	attest(t, "", "policy", write("good.toml", "[[accept]]\nname = \"a\"\nnot_after = 2001-01-01T00:00:00Z\nmax_age = \"90s\"\nmodules = [\"i-1\"]\napp = \""+digest[:64]+"\"\nconfig = \""+digest[:64]+"\"\n[accept.pcrs]\n0 = \""+digest+"\"\n"+
		"[[accept]]\nname = \"b\"\nnot_before = 2999-01-01T00:00:00Z\n[accept.pcrs]\n3 = \""+digest+"\"\n"+
		"[[accept]]\nname = \"c\"\nnot_after = 2999-01-01T00:00:00Z\n[accept.pcrs]\n2 = \""+digest+"\"\n")).
		wants(t, exitVerified, `1. "a" was expected until 2001`, "PCR0    "+digest, "at most 1m30s", "one of i-1", "app     aa", "config  aa", `2. "b" is expected only from 2999`, "warning: lists none", `3. "c" is expected until`)
}

// closedAddr is an address on which nobody listens any more.
func closedAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestProxyRefuses(t *testing.T) {
	t.Parallel()
	e, flags := corridor(t, attestationtest.Options{Seed: "test"})
	args := func(url string, more ...string) []string {
		return append(append([]string{"proxy", url}, flags...), more...)
	}
	attest(t, "", args(e.URL, "--listen", "0.0.0.0:1")...).wants(t, exitUsage, "no address and port of loopback")
	attest(t, "", args(e.URL, "--listen", "localhost:1")...).wants(t, exitUsage, "no address and port of loopback")
	attest(t, "", args(e.URL+"/path")...).wants(t, exitUsage, "has a path")
	attest(t, "", args("https://"+closedAddr(t))...).wants(t, exitNotDone, "connect")
	e.Impostor.Store(true)
	attest(t, "", args(e.URL, "--listen", "127.0.0.1:0")...).wants(t, exitNotThisConnection, "does not name the key")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	e.Impostor.Store(false)
	attest(t, "", args(e.URL, "--listen", l.Addr().String())...).wants(t, exitNotDone, "in use")
}

// lines is a writer that a test reads line by line.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
	grew chan struct{}
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer func() {
		select {
		case l.grew <- struct{}{}:
		default:
		}
	}()
	return l.text.Write(p)
}

func (l *lines) wait(t *testing.T, prefix string) string {
	t.Helper()
	for {
		l.mu.Lock()
		_, rest, found := strings.Cut(l.text.String(), prefix)
		l.mu.Unlock()
		if line, _, whole := strings.Cut(rest, "\n"); found && whole {
			return line
		}
		select {
		case <-l.grew:
		case <-t.Context().Done():
			t.Fatalf("no line with %q", prefix)
		}
	}
}

func TestProxy(t *testing.T) {
	t.Parallel()
	e, flags := corridor(t, attestationtest.Options{Seed: "test"})
	ctx, cancel := context.WithCancel(t.Context())
	stderr := &lines{grew: make(chan struct{}, 1)}
	c := command{stdin: strings.NewReader(""), stdout: io.Discard, stderr: stderr, now: time.Now}
	done := make(chan int, 1)
	go func() { done <- c.run(ctx, append([]string{"proxy", e.URL, "--listen", "127.0.0.1:0"}, flags...)) }()
	addr := stderr.wait(t, "forwarding http://")

	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	ask := func(host string) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/a?b", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		resp, err := transport.RoundTrip(r)
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
	if status, body := ask("evil.example"); status != http.StatusForbidden || e.Served.Load() != 0 {
		t.Errorf("a foreign name gets %d %q", status, body)
	}
	want := fmt.Sprintf("HTTP/1.1 %s/a", strings.TrimPrefix(e.URL, "https://"))
	for _, host := range []string{addr, "localhost", "127.9.9.9:80", "[::1]:80"} {
		if status, body := ask(host); status != http.StatusOK || body != want {
			t.Errorf("Host %s gets %d %q, want %q", host, status, body, want)
		}
	}
	cancel()
	if code := <-done; code != exitVerified {
		t.Errorf("exit code %d", code)
	}
}
