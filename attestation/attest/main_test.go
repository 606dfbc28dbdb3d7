package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/corridor-enclave/corridor/attestation"
	"github.com/corridor-enclave/corridor/attestation/attestationtest"
	"github.com/corridor-enclave/corridor/attestation/findings"
	"github.com/corridor-enclave/corridor/attestation/nsm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type result struct {
	code           int
	stdout, stderr string
}

func attest(t testing.TB, stdin string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	c := command{stdin: strings.NewReader(stdin), stdout: &stdout, stderr: &stderr, now: time.Now}
	code := c.run(t.Context(), args)
	return result{code, stdout.String(), stderr.String()}
}

func (r result) wants(t testing.TB, code int, texts ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d", r.code, code)
	}
	for _, text := range texts {
		if !strings.Contains(r.stdout+r.stderr, text) {
			t.Errorf("output does not say %q", text)
		}
	}
	if t.Failed() {
		t.Logf("stdout:\n%s\nstderr:\n%s", r.stdout, r.stderr)
	}
}

func TestVerifyRefuses(t *testing.T) {
	t.Parallel()
	ago := func(d time.Duration) func() time.Time { return func() time.Time { return time.Now().Add(-d) } }
	tests := []struct {
		name    string
		options attestationtest.Options
		edit    func(*enclave)
		args    []string // behind URL, --root and --policy
		code    int
		want    []string
	}{
		{name: "server error", edit: func(e *enclave) { e.status = 500 }, code: exitNotDone, want: []string{"500 Internal Server Error", `"the module is\x1b[31m broken"`}},
		{name: "module failure", options: attestationtest.Options{Fail: func(string) error { return nsm.InternalError }}, code: exitNotDone, want: []string{"503 Service Unavailable", "InternalError"}},
		{name: "redirect", edit: func(e *enclave) { e.location = "https://example.com/enclave/attestation" }, code: exitNotDone, want: []string{"redirects to"}},
		{name: "not base64", edit: func(e *enclave) { e.replace = func([]byte) any { return "<html>" } }, code: exitNotGenuine, want: []string{"FAIL  document", "not base64"}},
		{name: "empty answer", edit: func(e *enclave) { e.replace = func([]byte) any { return "" } }, code: exitNotGenuine, want: []string{"FAIL  document"}},
		{name: "endless answer", edit: func(e *enclave) { e.replace = func([]byte) any { return strings.Repeat("A", 1<<20) } }, code: exitNotGenuine, want: []string{"FAIL  document", "longer than"}},
		{
			name: "changed on the way", edit: func(e *enclave) {
				e.replace = func(d []byte) any { return bytes.Replace(d, []byte("-enc"), []byte("-end"), 1) }
			}, code: exitNotGenuine, want: []string{"ok    chain", "FAIL  signature", "NOT VERIFIED: not genuine"},
		},
		{name: "AWS's root", args: []string{"--root=../roots/aws-nitro-g1.der"}, code: exitUsage, want: []string{"--root: given twice"}},
		{name: "other image", options: attestationtest.Options{PCRs: map[int][]byte{0: bytes.Repeat([]byte{7}, 48), 1: bytes.Repeat([]byte{7}, 48), 2: bytes.Repeat([]byte{7}, 48)}}, code: exitNotExpected, want: []string{"ok    nonce", "FAIL  PCRs", "PCR0 differs, PCR1 differs, PCR2 differs", "ok    key binding"}},
		{name: "debug mode", options: attestationtest.Options{Debug: true}, code: exitNotExpected, want: []string{"FAIL  PCRs", "debug mode"}},
		{name: "debug mode allowed, not listed", options: attestationtest.Options{Debug: true}, args: []string{"--allow-debug"}, code: exitNotExpected, want: []string{"PCR0 differs"}},
		{name: "other nonce", edit: func(e *enclave) { e.nonce = make([]byte, 20) }, code: exitNotFresh, want: []string{"FAIL  nonce", "answers another request"}},
		{name: "old", options: attestationtest.Options{Now: ago(time.Hour)}, code: exitNotFresh, want: []string{"ok    nonce", "FAIL  time", "1h0m"}},
		{name: "certificates expired", options: attestationtest.Options{Now: ago(24 * time.Hour)}, code: exitNotFresh, want: []string{"ok    signature", "FAIL  validity"}},
		{name: "other certificate", edit: func(e *enclave) { e.userData = attestation.NitridingUserData([]byte("other"), [32]byte{}) }, code: exitNotThisConnection, want: []string{"ok    PCRs", "FAIL  key binding"}},
		{name: "no binding", edit: func(e *enclave) { e.userData = []byte("hello") }, code: exitNotThisConnection, want: []string{"FAIL  key binding", "user data of 5 bytes"}},
		{
			name: "everything wrong: the lowest code counts", options: attestationtest.Options{Debug: true, Now: ago(time.Hour)},
			edit: func(e *enclave) { e.nonce, e.userData = make([]byte, 20), []byte{} }, code: exitNotExpected,
			want: []string{"FAIL  nonce", "FAIL  time", "FAIL  PCRs", "FAIL  key binding"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.options.Seed = "test"
			e := newEnclave(t, tt.options)
			if tt.edit != nil {
				tt.edit(e)
			}
			root, policy := newEnclave(t, attestationtest.Options{Seed: "test"}).files()
			args := append([]string{"verify", e.server.URL, "--root", root, "--policy", policy}, tt.args...)
			attest(t, "", args...).wants(t, tt.code, tt.want...)
			asJSON := attest(t, "", append(args, "--json")...)
			if tt.code == exitUsage {
				return
			}
			var r findings.Report
			if err := json.Unmarshal([]byte(asJSON.stdout), &r); err != nil || r.Verified || r.Exit != tt.code || r.Reason == "" {
				t.Errorf("JSON: %v, %+v", err, r)
			}
		})
	}
}

func TestVerifyRefusesOtherRoots(t *testing.T) {
	t.Parallel()
	e := newEnclave(t, attestationtest.Options{Seed: "test"})
	_, policy := e.files()
	other, _ := newEnclave(t, attestationtest.Options{Seed: "other"}).files()
	for _, args := range [][]string{{}, {"--root", other}, {"--root", "../roots/aws-nitro-g1.der"}} {
		attest(t, "", append([]string{"verify", e.server.URL, "--policy", policy}, args...)...).
			wants(t, exitNotGenuine, "ok    document", "FAIL  chain", "no trusted root is called")
	}
}

// A relay has a connection to the real enclave and hands out its documents.
func TestVerifyNoticesARelay(t *testing.T) {
	t.Parallel()
	e := newEnclave(t, attestationtest.Options{Seed: "test"})
	root, policy := e.files()
	client := e.server.Client()
	client.Transport.(*http.Transport).TLSClientConfig.InsecureSkipVerify = true
	relay := newServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, err := client.Get(e.server.URL + r.URL.RequestURI())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer answer.Body.Close()
		io.Copy(w, answer.Body)
	}), func(http.ConnState) {})
	attest(t, "", "verify", relay.URL, "--root", root, "--policy", policy).
		wants(t, exitNotThisConnection, "ok    nonce", "ok    PCRs", "FAIL  key binding")
}

func TestVerifyCannotBeDone(t *testing.T) {
	t.Parallel()
	e := newEnclave(t, attestationtest.Options{Seed: "test"})
	root, policy := e.files()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "https://" + listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	slow := newEnclave(t, attestationtest.Options{Seed: "test"})
	slow.block = make(chan struct{})
	t.Cleanup(func() { close(slow.block) }) // before the server is closed, which waits
	tests := []struct {
		name, url, want string
		args            []string
	}{
		{name: "nobody listens", url: nobody, want: "connection refused"},
		{name: "no TLS", url: strings.Replace(plain.URL, "http:", "https:", 1), want: "connect: "},
		{name: "no answer", url: slow.server.URL, want: "deadline exceeded", args: []string{"--timeout", "100ms"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := attest(t, "", append([]string{"verify", tt.url, "--root", root, "--policy", policy}, tt.args...)...)
			got.wants(t, exitNotDone, "attest: could not be done: ", tt.want, "NOT VERIFIED: could not be done")
		})
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	e := newEnclave(t, attestationtest.Options{Seed: "test"})
	e.appHash = [32]byte{0xab}
	root, policy := e.files()
	block, _ := pem.Decode(e.module.RootPEM())
	der := filepath.Join(t.TempDir(), "root.der")
	if err := os.WriteFile(der, block.Bytes, 0o600); err != nil {
		t.Fatal(err)
	}
	pcr := func(i int) string { return fmt.Sprintf("--pcr=%d=%X", i, e.module.PCRs()[i]) }
	tests := []struct {
		name string
		args []string
		want []string
	}{
		{name: "policy", args: []string{e.server.URL, "--root", root, "--policy", policy}, want: []string{`as listed for image "simulated"`, "app hash     ab0000"}},
		{name: "flags first", args: []string{"-root=" + root, "-policy", policy, "-timeout", "20s", e.server.URL + "/"}},
		{name: "PCRs", args: []string{pcr(0), e.server.URL, pcr(1), "--root", der, pcr(2), pcr(4), "--max-age=1m"}},
		{name: "below a path", args: []string{e.server.URL + "/below/a/path", "--root", root, "--policy", policy}},
		{name: "no image pinned", args: []string{pcr(4), e.server.URL, "--root", root}, want: []string{"warn  policy", "any image can match"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := e.conns.Load()
			want := append(tt.want, "ok    connection", "ok    document", "ok    chain", "ok    signature", "ok    validity",
				"ok    nonce", "ok    time", "ok    PCRs", "ok    key binding", "\nverified\n")
			got := attest(t, "", append([]string{"verify"}, tt.args...)...)
			got.wants(t, exitVerified, want...)
			if got.stderr != "" {
				t.Errorf("stderr: %s", got.stderr)
			}
			if n := e.conns.Load() - before; n != 1 {
				t.Errorf("%d connections were made, want 1: the document has to come over the one it is checked against", n)
			}
		})
	}
}

func TestVerifyJSON(t *testing.T) {
	t.Parallel()
	e := newEnclave(t, attestationtest.Options{Seed: "test"})
	root, policy := e.files()
	got := attest(t, "", "verify", "--json", e.server.URL, "--root", root, "--policy", policy)
	got.wants(t, exitVerified)
	var r findings.Report
	if err := json.Unmarshal([]byte(got.stdout), &r); err != nil {
		t.Fatal(err)
	}
	if !r.Verified || r.Verdict != "verified" || r.Image != "simulated" || len(r.Checks) != 9 || r.URL != e.server.URL {
		t.Errorf("got %+v", r)
	}
	if r.Document == nil || r.Document.Debug || r.Document.PCRs[0] != hex.EncodeToString(e.module.PCRs()[0]) {
		t.Errorf("document is %+v", r.Document)
	}
}

func TestVerifyDebugModeWhenAskedFor(t *testing.T) {
	t.Parallel()
	e := newEnclave(t, attestationtest.Options{Seed: "test", Debug: true})
	root, policy := e.files()
	attest(t, "", "verify", e.server.URL, "--root", root, "--policy", policy).
		wants(t, exitUsage, "zero means debug mode")
	attest(t, "", "verify", e.server.URL, "--root", root, "--policy", policy, "--allow-debug").
		wants(t, exitVerified, "ok    PCRs", "warn  debug mode")
}

func TestUsage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad")
	if err := os.WriteFile(bad, []byte("-----BEGIN KEY-----\nAAAA\n-----END KEY-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing")
	tests := []struct {
		name string
		args string
		want []string
	}{
		{name: "nothing", args: "", want: []string{"no subcommand"}},
		{name: "unknown subcommand", args: "prove", want: []string{`unknown subcommand "prove"`}},
		{name: "empty policy", args: "verify https://h", want: []string{"no expectation: give --policy or --pcr"}},
		{name: "two policies", args: "verify https://h --policy " + bad + " --pcr 0=00", want: []string{"both given", "PCR0: 2 hex digits"}},
		{
			name: "everything at once",
			args: "verify http://h https://i --max-age -1s --timeout soon --pcr 0 --pcr 99=00 --json=maybe --policy= --root " + missing + " --verbose --root",
			want: []string{"2 URLs are given", "--max-age: \"-1s\"", "--timeout: \"soon\"", `"0" is not of the form N=HEX`, `"99" is not a PCR`, `"maybe" is neither`, "--policy: a file is missing", "missing: no such file", "unknown flag --verbose", "--root: a value is missing"},
		},
		{name: "no TLS", args: "verify http://h --policy " + missing, want: []string{`"http://h" is not a URL of the form https://`, "--policy: open"}},
		{name: "too much URL", args: "verify https://u@h/?x#y --policy " + bad, want: []string{"more than host, port and path", "--policy " + bad}},
		{name: "a key as root", args: "verify https://h --root " + bad + " --pcr 0=" + strings.Repeat("1", 96), want: []string{"holds a KEY"}},
		{name: "a policy as root", args: "verify https://h --root main.go --pcr 0=" + strings.Repeat("1", 96), want: []string{"neither PEM nor a certificate"}},
		{name: "PCR twice", args: "verify https://h --pcr 0=" + strings.Repeat("1", 96) + " --pcr 0=" + strings.Repeat("2", 96), want: []string{"PCR0 is given twice"}},
		{name: "decode without file", args: "decode --fast", want: []string{"0 files are given", "unknown flag --fast"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := attest(t, "", strings.Fields(tt.args)...)
			got.wants(t, exitUsage, append(tt.want, "usage:")...)
			if got.stdout != "" {
				t.Errorf("stdout: %s", got.stdout)
			}
		})
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	if got := attest(t, "", "--help"); got.stdout != usage {
		got.wants(t, exitVerified, usage)
	}
}

func TestDecode(t *testing.T) {
	t.Parallel()
	const file = "../testdata/aws-c.cose"
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	encoded := base64.StdEncoding.EncodeToString(raw) + "\n"
	attest(t, "garbage", "decode", "-").wants(t, exitNotGenuine, "not base64")
	attest(t, "", "decode", "no-such-file").wants(t, exitNotDone, "no such file")
	for _, got := range []result{attest(t, "", "decode", file), attest(t, encoded, "decode", "-"), attest(t, string(raw), "decode", "-")} {
		got.wants(t, exitVerified, "UNVERIFIED", "i-0f1cd77d37fd8bcc9-enc018e7aa61e2040ff", "2024-12-13T07:37:58.96Z", "nonce        none", "public key   64 bytes e646f8b0", "PCR0         189038ec")
	}
	var c findings.Claims
	if err := json.Unmarshal([]byte(attest(t, "", "decode", "--json", file).stdout), &c); err != nil || len(c.PCRs) != 16 {
		t.Errorf("JSON: %v, %+v", err, c)
	}
}

// A verification that is called off ends as one that could not be done.
func TestVerifyIsCalledOff(t *testing.T) {
	t.Parallel()
	e := newEnclave(t, attestationtest.Options{Seed: "test"})
	root, policy := e.files()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stdout, stderr bytes.Buffer
	c := command{stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr, now: time.Now}
	if code := c.run(ctx, []string{"verify", e.server.URL, "--root", root, "--policy", policy}); code != exitNotDone {
		t.Fatalf("exit code %d, want %d: %s%s", code, exitNotDone, &stdout, &stderr)
	}
}
