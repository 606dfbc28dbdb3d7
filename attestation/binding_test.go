package attestation_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"math/big"
	"strings"
	"testing"

	"github.com/corridor-enclave/corridor/attestation"
)

// issue makes a self-signed certificate, another one at each call.
func issue(t testing.TB, key *ecdsa.PrivateKey, serial int64) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(serial)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

func TestEndpoint(t *testing.T) {
	t.Parallel()
	ours, theirs := ecdsaKey(t, elliptic.P256()), ecdsaKey(t, elliptic.P256())
	leaf, renewed, other := issue(t, ours, 1), issue(t, ours, 2), issue(t, theirs, 3)
	spki := func(c *x509.Certificate) attestation.Digest { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }
	app := attestation.Digest{7}
	statement := func(s attestation.Statement) []byte {
		b, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	client := statement(attestation.Statement{Purpose: attestation.PurposeClient, App: app, Keys: []attestation.Digest{spki(leaf)}, Certificates: []attestation.Digest{sha256.Sum256(leaf.Raw)}})
	rotating := statement(attestation.Statement{Purpose: attestation.PurposeClient, App: app, Keys: []attestation.Digest{spki(leaf), spki(other)}})
	nitriding := attestation.NitridingUserData(leaf.Raw, app)
	tests := []struct {
		name     string
		userData []byte
		leaf     *x509.Certificate
		want     string // in the error; empty means that it is this connection
	}{
		{"no user data", nil, leaf, "user data of 0 bytes"},
		{"a broken statement", client[:len(client)-1], leaf, "cut off"},
		{"purpose peer", statement(attestation.Statement{Purpose: attestation.PurposePeer}), leaf, "purpose peer"},
		{"purpose kms", statement(attestation.Statement{Purpose: attestation.PurposeKMS}), leaf, "purpose kms"},
		{"purpose app", statement(attestation.Statement{Purpose: attestation.PurposeApp}), leaf, "purpose app"},
		{"no certificate", client, nil, "no certificate"},
		{"another key", client, other, "name the key"},
		{"nitriding, another certificate", nitriding, other, "name the certificate"},
		{"nitriding, renewed certificate", nitriding, renewed, "name the certificate"},
		{"this key", client, leaf, ""},
		{"this key in a renewed certificate", client, renewed, ""},
		{"old key of a rotation", rotating, leaf, ""},
		{"new key of a rotation", rotating, other, ""},
		{"nitriding, this certificate", nitriding, leaf, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e, err := attestation.EndpointOf(&attestation.Document{Claims: attestation.Claims{UserData: tt.userData}})
			if err == nil {
				if e.App != app {
					t.Errorf("app %x, want %x", e.App, app)
				}
				err = e.Check(tt.leaf)
			}
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if !errors.Is(err, attestation.ErrNotThisConnection) || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %v: %s", err, attestation.ErrNotThisConnection, tt.want)
			}
		})
	}
}
