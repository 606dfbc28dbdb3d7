// Package clienttest is an enclave's front as far as its clients see it: TLS, an
// app, and evidence from a simulated module. It is for tests; the real one is
// elsewhere, and this package must not import it.
package clienttest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/corridor-enclave/corridor/attestation"
	"github.com/corridor-enclave/corridor/attestation/attestationtest"
	"github.com/corridor-enclave/corridor/attestation/issuer"
	"github.com/corridor-enclave/corridor/attestation/nsm"
)

// An Enclave answers https requests until its test ends.
type Enclave struct {
	URL    string
	Module *attestationtest.Module
	// Asked counts the requests for evidence, Served those for the app.
	Asked, Served atomic.Int64
	// Lie, if it is set before the first request, changes the evidence.
	Lie func(*attestation.Evidence)
	// Impostor, if it is set, has the enclave show other keys than it attests.
	Impostor atomic.Bool

	issuer  *issuer.Issuer
	current atomic.Pointer[tls.Certificate]
	server  *httptest.Server
}

// New starts an enclave whose app answers every request with its path.
func New(t testing.TB, o attestationtest.Options) *Enclave {
	t.Helper()
	module, err := attestationtest.NewModule(o)
	if err != nil {
		t.Fatal(err)
	}
	e := &Enclave{Module: module}
	session := nsm.NewSession(module)
	e.issuer = issuer.New(issuer.Config{Module: session, Statement: e.statement, Now: o.Now})
	e.Rotate(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.issuer.Run(ctx) }()
	e.server = httptest.NewUnstartedServer(e)
	e.server.EnableHTTP2 = true
	e.server.TLS = &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return e.current.Load(), nil }}
	e.server.StartTLS()
	// httptest puts in a certificate of its own, which would come first.
	e.server.TLS.Certificates = nil
	e.URL = e.server.URL
	t.Cleanup(func() {
		e.server.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		session.Close()
	})
	return e
}

// Rotate gives the enclave another key and certificate for new connections.
func (e *Enclave) Rotate(t testing.TB) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"enclave.example"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	e.current.Store(&tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf})
}

func (e *Enclave) statement() attestation.Statement {
	key := attestation.Digest(sha256.Sum256(e.current.Load().Leaf.RawSubjectPublicKeyInfo))
	if e.Impostor.Load() {
		key[0] ^= 1
	}
	return attestation.Statement{Keys: []attestation.Digest{key}}
}

// ServeHTTP answers a client.
func (e *Enclave) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasSuffix(r.URL.Path, "/enclave/attestation") {
		e.Served.Add(1)
		_, _ = w.Write([]byte(r.Proto + " " + r.Host + r.URL.Path))
		return
	}
	e.Asked.Add(1)
	body, err := e.evidence(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body)
}

func (e *Enclave) evidence(r *http.Request) ([]byte, error) {
	nonce, err := hex.DecodeString(r.URL.Query().Get("nonce"))
	if err != nil {
		return nil, err
	}
	var exporter []byte
	if r.URL.Query().Get("binding") != "" {
		if exporter, err = r.TLS.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, attestation.ExporterSize); err != nil {
			return nil, err
		}
	}
	var evidence attestation.Evidence
	if len(nonce) == 0 {
		evidence, err = e.issuer.Kept(r.Context())
	} else {
		evidence, err = e.issuer.Fresh(r.Context(), nonce, exporter)
	}
	if err != nil {
		return nil, err
	}
	if e.Lie != nil {
		e.Lie(&evidence)
	}
	return evidence.Encode(), nil
}

// Roots returns the root to trust.
func (e *Enclave) Roots(t testing.TB) []*x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(e.Module.RootPEM())
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return []*x509.Certificate{root}
}

// Policy returns one that accepts the enclave's image.
func (e *Enclave) Policy(t testing.TB) *attestation.Policy {
	t.Helper()
	p, err := attestation.NewPolicy([]attestation.Accept{{Name: "simulated", PCRs: e.Module.PCRs()}}, false)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
