package clienttest_test

import (
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/corridor-enclave/corridor/attestation/attestationtest"
	"github.com/corridor-enclave/corridor/attestation/client/clienttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func leaf(t *testing.T, e *clienttest.Enclave) *x509.Certificate {
	t.Helper()
	conn, err := tls.Dial("tcp", strings.TrimPrefix(e.URL, "https://"), &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // only looked at
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0]
}

// The certificate shown is the enclave's own, and another one after a rotation.
func TestRotate(t *testing.T) {
	t.Parallel()
	e := clienttest.New(t, attestationtest.Options{Seed: "test"})
	before := leaf(t, e)
	if len(before.DNSNames) != 1 || before.DNSNames[0] != "enclave.example" {
		t.Errorf("the certificate is for %q", before.DNSNames)
	}
	if again := leaf(t, e); !again.Equal(before) {
		t.Error("the certificate changes by itself")
	}
	e.Rotate(t)
	if after := leaf(t, e); after.Equal(before) {
		t.Error("a rotation changes nothing")
	}
}
