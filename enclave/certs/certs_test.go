package certs_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corridor-enclave/corridor/enclave/certs"
)

func TestSelfSigned(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	long := strings.Repeat("a", 60) + "." + strings.Repeat("b", 60) + ".example"
	tests := []struct {
		name, commonName string
	}{
		{name: "enclave.example", commonName: "enclave.example"},
		{name: "192.0.2.1", commonName: "192.0.2.1"},
		{name: "2001:db8::1", commonName: "2001:db8::1"},
		{name: long},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, err := certs.NewSelfSigned(tt.name, func() time.Time { return now })
			if err != nil {
				t.Fatal(err)
			}
			c := s.Current()
			leaf, err := x509.ParseCertificate(c.Certificate[0])
			if err != nil || !leaf.Equal(c.Leaf) || len(c.Certificate) != 1 {
				t.Fatalf("leaf does not match the chain of %d: %v", len(c.Certificate), err)
			}
			roots := x509.NewCertPool()
			roots.AddCert(leaf)
			if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: tt.name, CurrentTime: now}); err != nil {
				t.Errorf("Verify: %v", err)
			}
			key, ok := leaf.PublicKey.(*ecdsa.PublicKey)
			if !ok || key.Curve != elliptic.P256() || leaf.SignatureAlgorithm != x509.ECDSAWithSHA256 {
				t.Errorf("key %T, signature %s; want ECDSA on P-256", leaf.PublicKey, leaf.SignatureAlgorithm)
			}
			if leaf.Subject.CommonName != tt.commonName || leaf.IsCA {
				t.Errorf("subject %q, CA %v; want %q, false", leaf.Subject, leaf.IsCA, tt.commonName)
			}
			if got := leaf.NotAfter.Sub(leaf.NotBefore); got != certs.Lifetime || !leaf.NotBefore.Before(now) {
				t.Errorf("valid for %s from %s, made at %s", got, leaf.NotBefore, now)
			}
		})
	}
}

func TestSelfSignedIsNewEachTime(t *testing.T) {
	t.Parallel()
	now := time.Now
	a, errA := certs.NewSelfSigned("a", now)
	b, errB := certs.NewSelfSigned("a", now)
	if errA != nil || errB != nil {
		t.Fatal(errA, errB)
	}
	if a.Current().Leaf.SerialNumber.Cmp(b.Current().Leaf.SerialNumber) == 0 {
		t.Error("two certificates have one serial number")
	}
	if a.Current().PrivateKey.(*ecdsa.PrivateKey).Equal(b.Current().PrivateKey) {
		t.Error("two certificates have one key")
	}
}

func TestSelfSignedRefusesWhatIsNoName(t *testing.T) {
	t.Parallel()
	if s, err := certs.NewSelfSigned("bücher.example", time.Now); err == nil || s != nil {
		t.Fatalf("NewSelfSigned = %v, %v; want an error", s, err)
	}
}

// A year of renewals: the key stays, the certificate is always valid for long, and
// the one before is in use until it ends.
func TestSelfSignedRenews(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, err := certs.NewSelfSigned("enclave.example", time.Now)
		if err != nil {
			t.Fatal(err)
		}
		first := s.Current()
		const day = 24 * time.Hour
		seen := map[string]bool{}
		for range 700 {
			c := s.Current()
			seen[string(c.Certificate[0])] = true
			if left := time.Until(c.Leaf.NotAfter); left < certs.RenewBefore {
				t.Fatalf("%v are left of the certificate", left)
			}
			if !c.PrivateKey.(*ecdsa.PrivateKey).Equal(first.PrivateKey) || !c.Leaf.PublicKey.(*ecdsa.PublicKey).Equal(first.Leaf.PublicKey) {
				t.Fatal("the key changes")
			}
			inUse := s.InUse()
			if !inUse[0].Equal(c.Leaf) || len(inUse) > 2 || !time.Now().Before(inUse[len(inUse)-1].NotAfter) {
				t.Fatalf("%d certificates are in use", len(inUse))
			}
			time.Sleep(day)
		}
		if len(seen) != 3 || len(s.InUse()) != 1 {
			t.Errorf("%d certificates in 700 days, %d in use at the end; want 3 and 1", len(seen), len(s.InUse()))
		}
	})
}
