package front_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/attestation"
	"github.com/corridor-enclave/corridor/attestation/attestationtest"
	"github.com/corridor-enclave/corridor/enclave/front"
)

var echoPath = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	_, _ = io.WriteString(w, "app: "+r.RequestURI)
})

const goodNonce = "000102030405060708090a0b0c0d0e0f10111213"

func TestRoutes(t *testing.T) {
	t.Parallel()
	source, err := url.Parse("https://example.org/source")
	if err != nil {
		t.Fatal(err)
	}
	ready := front.Config{
		Certificates: newCertificates(t), Proxy: echoPath, Source: source,
		Published: map[string]string{"fqdn": "enclave.example"},
	}
	plain, empty, waiting := ready, ready, ready
	plain.Certificates = nil
	empty.Proxy = nil
	waiting.App = fakeApp{unready: true}
	attest := "/enclave/attestation"

	tests := []struct {
		name         string
		cfg          front.Config
		method, path string
		status       int
		says         string
	}{
		{name: "no nonce", cfg: ready, path: attest, status: 400, says: "nonce is missing"},
		{name: "empty nonce", cfg: ready, path: attest + "?nonce=", status: 400, says: "0 characters"},
		{name: "short nonce", cfg: ready, path: attest + "?nonce=" + goodNonce[1:], status: 400, says: "39 characters"},
		{name: "long nonce", cfg: ready, path: attest + "?nonce=" + goodNonce + "0", status: 400, says: "41 characters"},
		{name: "nonce of letters", cfg: ready, path: attest + "?nonce=" + strings.Repeat("xy", 20), status: 400, says: "not made of 40 hex"},
		{name: "two nonces", cfg: ready, path: attest + "?nonce=" + goodNonce + "&nonce=" + goodNonce, status: 400, says: "more than once"},
		{name: "semicolon", cfg: ready, path: attest + "?a;nonce=" + goodNonce, status: 400, says: "cannot be parsed"},
		{name: "module fails", cfg: ready, path: attest + "?nonce=" + goodNonce, status: 503, says: "security module gave no document"},
		{name: "attestation by POST", cfg: ready, method: "POST", path: attest + "?nonce=" + goodNonce, status: 405},
		{name: "attestation by HEAD", cfg: ready, method: "HEAD", path: attest + "?nonce=" + goodNonce, status: 405},
		{name: "attestation without TLS", cfg: plain, path: attest + "?nonce=" + goodNonce, status: 404, says: "no certificate"},
		{name: "certificates without TLS", cfg: plain, path: "/enclave/certificates", status: 404, says: "no certificate"},

		{name: "unknown page", cfg: ready, path: "/enclave/x", status: 404, says: "no such page"},
		{name: "page's file without a page", cfg: ready, path: "/enclave/page/page.js", status: 404, says: "no such page"},
		{name: "slash behind", cfg: ready, path: "/enclave/", status: 404, says: "no such page"},
		{name: "two slashes", cfg: ready, path: "//enclave/attestation", status: 404, says: "no such page"},
		{name: "dots", cfg: ready, path: "/a/../enclave/config", status: 404, says: "no such page"},
		{name: "encoded slash", cfg: ready, path: "/enclave%2fattestation", status: 404, says: "no such page"},
		{name: "encoded dots", cfg: ready, path: "/x/%2e%2e/enclave/x", status: 404, says: "no such page"},
		{name: "made-up method", cfg: ready, method: "BREW", path: "/enclave/config", status: 405},
		{name: "health by DELETE", cfg: ready, method: "DELETE", path: "/enclave/health", status: 405},

		{name: "page", cfg: ready, path: "/enclave", status: 200, says: "https://example.org/source"},
		{name: "page without TLS", cfg: plain, path: "/enclave", status: 200, says: "nothing about it can be proven"},
		{name: "config", cfg: ready, path: "/enclave/config", status: 200, says: `"fqdn": "enclave.example"`},
		{name: "health", cfg: ready, path: "/enclave/health", status: 200, says: `{"status":"ready"}`},
		{name: "health by HEAD", cfg: ready, method: "HEAD", path: "/enclave/health", status: 200},
		{name: "health before the app", cfg: waiting, path: "/enclave/health", status: 503, says: "waiting for the app"},

		{name: "app", cfg: ready, path: "/a/b?c=d;e", status: 200, says: "app: /a/b?c=d;e"},
		{name: "app by any method", cfg: ready, method: "BREW", path: "/", status: 200, says: "app: /"},
		{name: "similar name", cfg: ready, path: "/enclaves", status: 200, says: "app: /enclaves"},
		{name: "below another name", cfg: ready, path: "/a/enclave/config", status: 200, says: "app: /a/enclave/config"},
		{name: "app not ready", cfg: waiting, path: "/", status: 503, says: "not ready"},
		{name: "no app", cfg: empty, path: "/", status: 404, says: "no app is configured"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			base, client := overTCP(t, tt.cfg)
			method := tt.method
			if method == "" {
				method = http.MethodGet
			}
			resp, body := fetch(t, client, method, base+tt.path, nil)
			if resp.StatusCode != tt.status || !strings.Contains(body, tt.says) {
				t.Fatalf("%s %s = %d %q; want %d and %q", method, tt.path, resp.StatusCode, body, tt.status, tt.says)
			}
			if tt.status == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") == "" {
				t.Error("503 without Retry-After")
			}
			if tt.status == http.StatusMethodNotAllowed && resp.Header.Get("Allow") == "" {
				t.Error("405 without Allow")
			}
		})
	}
}

// TestProof: what a client gets verifies, from the document to the connection.
func TestProof(t *testing.T) {
	t.Parallel()
	module, err := attestationtest.NewModule(attestationtest.Options{Seed: t.Name()})
	if err != nil {
		t.Fatal(err)
	}
	app := fakeApp{hash: sha256.Sum256([]byte("the app's key"))}
	base, client := overTCP(t, front.Config{
		Certificates: newCertificates(t), Attester: sessionAttester(t, module), App: app,
	})
	resp, body := fetch(t, client, http.MethodGet, base+"/enclave/attestation?nonce="+strings.ToUpper(goodNonce), nil)
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/plain; charset=utf-8" || !strings.HasSuffix(body, "\n") {
		t.Fatalf("%s, %q: %q", resp.Status, resp.Header, body)
	}
	if resp.TLS.Version < tls.VersionTLS12 || resp.Proto != "HTTP/2.0" {
		t.Errorf("spoke %s over TLS %x", resp.Proto, resp.TLS.Version)
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(body, "\n"))
	if err != nil {
		t.Fatal(err)
	}
	document, err := (&attestation.Verifier{Roots: []*x509.Certificate{parsePEM(t, module.RootPEM())}, Now: time.Now}).Verify(raw)
	if err != nil {
		t.Fatal(err)
	}
	nonce, err := hex.DecodeString(goodNonce)
	if err != nil {
		t.Fatal(err)
	}
	if err := (attestation.Freshness{Nonce: nonce, MaxAge: time.Minute}).Check(document, time.Now()); err != nil {
		t.Error(err)
	}
	cert, hash, err := attestation.ParseNitridingUserData(document.UserData)
	if err != nil || cert != sha256.Sum256(resp.TLS.PeerCertificates[0].Raw) || hash != app.hash {
		t.Errorf("user data binds certificate %x and hash %x, %v; want those of this connection and app", cert, hash, err)
	}

	_, chain := fetch(t, client, http.MethodGet, base+"/enclave/certificates", nil)
	if !parsePEM(t, []byte(chain)).Equal(resp.TLS.PeerCertificates[0]) {
		t.Error("/enclave/certificates does not show what TLS presents")
	}
}

func parsePEM(t *testing.T, text []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("no PEM in %q", text)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestOldTLS: TLS 1.1 is refused, whoever asks.
func TestOldTLS(t *testing.T) {
	t.Parallel()
	base, _ := overTCP(t, front.Config{Certificates: newCertificates(t)})
	c, err := tls.Dial("tcp", strings.TrimPrefix(base, "https://"), &tls.Config{
		InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11, //nolint:gosec // that is the test
	})
	if err == nil {
		c.Close()
		t.Fatal("TLS 1.1 was accepted")
	}
}

// TestModuleQueueIsBounded: who comes when too many wait is sent away at once.
func TestModuleQueueIsBounded(t *testing.T) {
	t.Parallel()
	const limit = 64
	arrived, release := make(chan struct{}, limit), make(chan struct{})
	base, client := overTCP(t, front.Config{
		Certificates: newCertificates(t),
		Attester: attesterFunc(func(ctx context.Context, _, _ []byte) ([]byte, error) {
			arrived <- struct{}{}
			<-release
			return []byte("document"), nil
		}),
	})
	var waiting sync.WaitGroup
	for range limit {
		waiting.Go(func() {
			resp, err := client.Get(base + "/enclave/attestation?nonce=" + goodNonce)
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Errorf("a client within the limit got %s", resp.Status)
			}
		})
	}
	for range limit {
		<-arrived
	}
	resp, body := fetch(t, client, http.MethodGet, base+"/enclave/attestation?nonce="+goodNonce, nil)
	if resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "too many") {
		t.Errorf("one more client got %d %q; want 503", resp.StatusCode, body)
	}
	close(release)
	waiting.Wait()
}

// TestPanic: a request that panics hurts itself alone, and is never taken for a
// whole answer.
func TestPanic(t *testing.T) {
	t.Parallel()
	base, client := overTCP(t, front.Config{
		Certificates: newCertificates(t),
		Proxy: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/late" {
				_, _ = io.WriteString(w, "half an ans")
				if err := http.NewResponseController(w).Flush(); err != nil {
					t.Error(err)
				}
			}
			panic(errors.New("handler failed"))
		}),
	})
	if resp, _ := fetch(t, client, http.MethodGet, base+"/early", nil); resp.StatusCode != http.StatusInternalServerError {
		t.Errorf("panic before the answer = %s; want 500", resp.Status)
	}
	resp, err := client.Get(base + "/late")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("panic inside the answer ended it as if it were whole")
	}
	if resp, _ := fetch(t, client, http.MethodGet, base+"/enclave/health", nil); resp.StatusCode != http.StatusOK {
		t.Errorf("after the panics health = %s", resp.Status)
	}
}

func TestPublishedMustBeJSON(t *testing.T) {
	t.Parallel()
	_, err := front.New(withDefaults(front.Config{Published: func() {}}))
	if unsupported := (*json.UnsupportedTypeError)(nil); !errors.As(err, &unsupported) {
		t.Fatalf("New = %v; want an encoding error", err)
	}
}
