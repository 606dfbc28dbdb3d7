package front_test

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/attestation"
	"github.com/corridor-enclave/corridor/attestation/attestationtest"
	"github.com/corridor-enclave/corridor/attestation/issuer"
	"github.com/corridor-enclave/corridor/attestation/nsm"
	"github.com/corridor-enclave/corridor/enclave/certs"
	"github.com/corridor-enclave/corridor/enclave/front"
)

// runIssuer starts an issuer for the certificates, with a simulated module.
func runIssuer(t *testing.T, m *attestationtest.Module, c *certs.SelfSigned) *issuer.Issuer {
	t.Helper()
	session := nsm.NewSession(m)
	i := issuer.New(issuer.Config{Module: session, Statement: func() attestation.Statement {
		return attestation.Statement{Keys: []attestation.Digest{sha256.Sum256(c.Current().Leaf.RawSubjectPublicKeyInfo)}}
	}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- i.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		session.Close()
	})
	return i
}

func fetchEvidence(t *testing.T, c *http.Client, url, accept string) (*http.Response, string) {
	t.Helper()
	return fetch(t, &http.Client{Transport: accepting{accept, c.Transport}}, http.MethodGet, url, nil)
}

// accepting sets a header.
type accepting struct {
	accept string
	next   http.RoundTripper
}

func (a accepting) RoundTrip(r *http.Request) (*http.Response, error) {
	r.Header.Set("Accept", a.accept)
	return a.next.RoundTrip(r)
}

// failing is an issuer that has nothing.
type failing struct{ err error }

func (f failing) Fresh(context.Context, []byte, []byte) (attestation.Evidence, error) {
	return attestation.Evidence{}, f.err
}

func (f failing) Kept(context.Context) (attestation.Evidence, error) {
	return attestation.Evidence{}, f.err
}

func TestEvidenceRefuses(t *testing.T) {
	t.Parallel()
	broken := front.Config{Certificates: newCertificates(t), Evidence: failing{nsm.InternalError}}
	busy, plain := broken, broken
	busy.Evidence = failing{issuer.ErrBusy}
	plain.Certificates = nil
	tests := []struct {
		name   string
		cfg    front.Config
		query  string
		status int
		says   string
	}{
		{"short nonce", broken, "?nonce=" + goodNonce[:30], 400, "16 to 64 bytes"},
		{"long nonce", broken, "?nonce=" + strings.Repeat("00", 65), 400, "16 to 64 bytes"},
		{"nonce of letters", broken, "?nonce=" + strings.Repeat("xy", 20), 400, "16 to 64 bytes"},
		{"two nonces", broken, "?nonce=" + goodNonce + "&nonce=" + goodNonce, 400, "more than once"},
		{"semicolon", broken, "?a;b", 400, "cannot be parsed"},
		{"unknown key", broken, "?nonse=" + goodNonce, 400, "not known"},
		{"unknown binding", broken, "?binding=tls-unique", 400, "only binding"},
		{"binding without nonce", broken, "?binding=tls-exporter", 400, "needs a nonce"},
		{"module fails", broken, "?nonce=" + goodNonce, 503, "gave no document"},
		{"module fails without nonce", broken, "", 503, "gave no document"},
		{"busy", busy, "?nonce=" + goodNonce, 503, "too many clients wait"},
		{"without TLS", plain, "?nonce=" + goodNonce, 404, "no certificate"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			base, client := overTCP(t, tt.cfg)
			resp, body := fetchEvidence(t, client, base+"/enclave/attestation"+tt.query, "application/json")
			if resp.StatusCode != tt.status || !strings.Contains(body, tt.says) || resp.Header.Get("Vary") != "Accept" {
				t.Fatalf("%d %q, Vary %q; want %d and %q", resp.StatusCode, body, resp.Header.Get("Vary"), tt.status, tt.says)
			}
			if tt.status == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") == "" {
				t.Error("503 without Retry-After")
			}
		})
	}
}

// TestEvidence: what a client gets verifies, with and without a nonce, bound to
// the key and to the connection, over HTTP/2.
func TestEvidence(t *testing.T) {
	t.Parallel()
	module, err := attestationtest.NewModule(attestationtest.Options{Seed: t.Name()})
	if err != nil {
		t.Fatal(err)
	}
	certificates := newCertificates(t)
	base, client := overTCP(t, front.Config{
		Certificates: certificates, Attester: sessionAttester(t, module), Evidence: runIssuer(t, module, certificates),
	})
	verifier := attestation.Verifier{Roots: []*x509.Certificate{parsePEM(t, module.RootPEM())}}
	nonce, err := hex.DecodeString(goodNonce)
	if err != nil {
		t.Fatal(err)
	}
	for query, bound := range map[string]bool{"": false, "?nonce=" + goodNonce: false, "?binding=tls-exporter&nonce=" + goodNonce: true} {
		resp, body := fetchEvidence(t, client, base+"/enclave/attestation"+query, "text/html, application/json;q=0.9")
		if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/json" || resp.Proto != "HTTP/2.0" {
			t.Fatalf("%q: %s %s %q", query, resp.Proto, resp.Status, body)
		}
		e, err := attestation.ParseEvidence([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		d, err := verifier.Verify(e.Document)
		if err != nil {
			t.Fatal(err)
		}
		var exporter []byte
		if bound {
			if exporter, err = resp.TLS.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32); err != nil {
				t.Fatal(err)
			}
		}
		fresh := attestation.Freshness{Nonce: nonce, Proof: e.Proof, Exporter: exporter}
		if query == "" {
			err = fresh.CheckTime(d, time.Now())
		} else {
			err = fresh.Check(d, time.Now())
		}
		if err != nil {
			t.Errorf("%q: %v", query, err)
		}
		endpoint, err := attestation.EndpointOf(d)
		if err == nil {
			err = endpoint.Check(resp.TLS.PeerCertificates[0])
		}
		if err != nil {
			t.Errorf("%q: %v", query, err)
		}
	}
	for _, accept := range []string{"*/*", "text/plain", "application/*", "no media type"} {
		resp, body := fetchEvidence(t, client, base+"/enclave/attestation?nonce="+goodNonce, accept)
		if resp.StatusCode != http.StatusOK || strings.HasPrefix(body, "{") {
			t.Errorf("Accept: %s gets %s %.40q; want nitriding's form", accept, resp.Status, body)
		}
	}
}
