package certs_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corridor-enclave/corridor/attestation"
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
			s, err := certs.NewSelfSigned(tt.name, 0, func() time.Time { return now })
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
	a, errA := certs.NewSelfSigned("a", 0, now)
	b, errB := certs.NewSelfSigned("a", 0, now)
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
	if s, err := certs.NewSelfSigned("bücher.example", 0, time.Now); err == nil || s != nil {
		t.Fatalf("NewSelfSigned = %v, %v; want an error", s, err)
	}
}

// A year of renewals: the key stays, the certificate is always valid for long, and
// the one before is in use until it ends.
func TestSelfSignedRenews(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, err := certs.NewSelfSigned("enclave.example", 0, time.Now)
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

// TestKeysRotate: a client that has pinned the keys of a document, however it got it,
// knows every key that it meets for as long as it pins and as long as it is connected.
func TestKeysRotate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const lifetime, pin, step = 30 * 24 * time.Hour, time.Hour, 30 * time.Minute
		s, err := certs.NewSelfSigned("enclave.example", lifetime, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		type document struct {
			at   time.Time
			keys []string
		}
		key := func(c *x509.Certificate) string { return string(c.RawSubjectPublicKeyInfo) }
		seen, documents, last := map[string]time.Time{}, []document{}, 0
		for start := time.Now(); time.Since(start) < 4*lifetime+5*24*time.Hour; time.Sleep(step) {
			now := time.Now()
			d := document{at: now}
			for _, leaf := range s.InUse() {
				d.keys = append(d.keys, key(leaf))
			}
			if len(d.keys) > attestation.MaxKeys {
				t.Fatalf("%d keys do not fit in a document", len(d.keys))
			}
			documents = append(documents, d)
			current := key(s.Current().Leaf)
			if _, known := seen[current]; !known {
				last++
			}
			seen[current] = now
			for len(documents) > 0 && now.Sub(documents[0].at) > pin {
				documents = documents[1:]
			}
			for _, d := range documents {
				if !slices.Contains(d.keys, current) {
					t.Fatalf("a document of %v ago does not name the key", now.Sub(d.at))
				}
			}
			for old, at := range seen {
				if named := slices.Contains(d.keys, old); !named && now.Sub(at) < 7*24*time.Hour {
					t.Fatalf("a key is not named any more %v after it was presented", now.Sub(at))
				} else if named && now.Sub(at) > 9*24*time.Hour {
					t.Fatalf("a key is still named %v after it was presented", now.Sub(at))
				}
			}
		}
		if last != 5 {
			t.Errorf("%d keys in a little more than four lifetimes, want 5", last)
		}
		// Nobody has asked for a long time: the next key is still announced first.
		time.Sleep(2 * lifetime)
		before := key(s.Current().Leaf)
		if _, known := seen[before]; !known {
			t.Error("a key is presented that no document has named")
		}
		time.Sleep(certs.Announce)
		if key(s.Current().Leaf) == before {
			t.Error("the announced key is not presented")
		}
	})
}
