package attestation_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"crypto/x509"
	"testing"

	"github.com/corridor-enclave/corridor/attestation"
)

// BenchmarkVerify measures a real document of five certificates, and beside it
// the five signature checks that it cannot do without; the difference is ours.
func BenchmarkVerify(b *testing.B) {
	raw := readDocument(b, "aws-c.cose")
	b.Run("document", func(b *testing.B) {
		v := attestation.Verifier{Roots: awsRoots(b), Now: at("2024-12-13T07:38:00Z")}
		b.ReportAllocs()
		b.SetBytes(int64(len(raw)))
		for b.Loop() {
			if _, err := v.Verify(raw); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("signatures", func(b *testing.B) {
		key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		if err != nil {
			b.Fatal(err)
		}
		digest := sha512.Sum384(raw)
		signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			for range 5 {
				if !ecdsa.VerifyASN1(&key.PublicKey, digest[:], signature) {
					b.Fatal("signature does not verify")
				}
			}
		}
	})
	b.Run("parse", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(raw)))
		for b.Loop() {
			if _, err := attestation.Parse(raw); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("certificates", func(b *testing.B) {
		u, err := attestation.Parse(raw)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			for _, der := range append(u.CABundle[1:4:4], u.Certificate) {
				if _, err := x509.ParseCertificate(der); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}
