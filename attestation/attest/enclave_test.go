package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/corridor-enclave/corridor/attestation"
	"github.com/corridor-enclave/corridor/attestation/attestationtest"
	"github.com/corridor-enclave/corridor/attestation/nsm"
)

// enclave is an enclave's front as far as the command sees it: a TLS server with
// a certificate of its own, and a simulated module.
type enclave struct {
	t       testing.TB
	module  *attestationtest.Module
	session *nsm.Session
	server  *httptest.Server
	conns   atomic.Int64
	// What the enclave does wrong.
	nonce    []byte                    // answered instead of the one asked for
	userData []byte                    // instead of the binding
	appHash  [32]byte                  // bound beside the certificate
	replace  func(document []byte) any // what is served: []byte as base64, string as it is
	status   int
	location string
	block    chan struct{} // held before the answer until closed
}

func certificate(t testing.TB) tls.Certificate {
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
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func newEnclave(t testing.TB, o attestationtest.Options) *enclave {
	t.Helper()
	module, err := attestationtest.NewModule(o)
	if err != nil {
		t.Fatal(err)
	}
	e := &enclave{t: t, module: module, session: nsm.NewSession(module)}
	e.server = newServer(t, e, func(state http.ConnState) {
		if state == http.StateNew {
			e.conns.Add(1)
		}
	})
	return e
}

func newServer(t testing.TB, h http.Handler, onState func(http.ConnState)) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(h)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate(t)}}
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) { onState(state) }
	server.Config.ErrorLog = nil
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

func (e *enclave) leaf() []byte { return e.server.TLS.Certificates[0].Certificate[0] }

func (e *enclave) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if e.block != nil {
		<-e.block
	}
	if e.location != "" {
		http.Redirect(w, r, e.location, http.StatusFound)
		return
	}
	if e.status != 0 {
		http.Error(w, "the module is\x1b[31m broken\nsecond line", e.status)
		return
	}
	nonce, err := hex.DecodeString(r.URL.Query().Get("nonce"))
	if err != nil || len(nonce) != 20 || !strings.HasSuffix(r.URL.Path, "/enclave/attestation") {
		http.Error(w, "bad request", http.StatusBadRequest)
		return
	}
	if e.nonce != nil {
		nonce = e.nonce
	}
	userData := attestation.NitridingUserData(e.leaf(), e.appHash)
	if e.userData != nil {
		userData = e.userData
	}
	document, err := e.session.Attest(r.Context(), nsm.AttestationRequest{Nonce: nonce, UserData: userData})
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	var answer any = document
	if e.replace != nil {
		answer = e.replace(document)
	}
	if b, ok := answer.([]byte); ok {
		answer = base64.StdEncoding.EncodeToString(b) + "\n"
	}
	io.WriteString(w, answer.(string))
}

// files writes the root and the policy of the module and returns their names.
func (e *enclave) files() (root, policy string) {
	dir := e.t.TempDir()
	root, policy = filepath.Join(dir, "root.pem"), filepath.Join(dir, "policy.toml")
	for name, content := range map[string][]byte{root: e.module.RootPEM(), policy: e.module.PolicyTOML()} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			e.t.Fatal(err)
		}
	}
	return root, policy
}
