package attestation_test

import (
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/corridor-enclave/corridor/attestation"
)

func TestVerifyRefuses(t *testing.T) {
	t.Parallel()
	c := newChain(t, "test", nil)
	v := attestation.Verifier{Roots: []*x509.Certificate{c.Root()}, Now: now}
	names := make(map[string]bool)
	for _, tt := range brokenDocuments(t, c) {
		if names[tt.name] {
			t.Errorf("two documents are called %q", tt.name)
		}
		names[tt.name] = true
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.is == nil {
				tt.is = attestation.ErrNotGenuine
			}
			d, err := v.Verify(tt.raw)
			var refused *attestation.Error
			if d != nil || !errors.Is(err, tt.is) || !errors.As(err, &refused) {
				t.Fatalf("got a document: %v, %v; want %v", d != nil, err, tt.is)
			}
			if refused.Step != tt.step || !strings.Contains(refused.Reason, tt.why) {
				t.Fatalf("refused at %s: %s; want %s: %s", refused.Step, refused.Reason, tt.step, tt.why)
			}
		})
	}
}

// The corpus proves something only if what it breaks was good.
func TestVerifyTakesWhatTheCorpusBreaks(t *testing.T) {
	t.Parallel()
	c := newChain(t, "test", nil)
	v := attestation.Verifier{Roots: []*x509.Certificate{newChain(t, "other", nil).Root(), c.Root()}, Now: now}
	minimal := fields(c)
	delete(minimal, "nonce")
	delete(minimal, "user_data")
	delete(minimal, "public_key")
	forged := fields(c)
	forged["cabundle"].([]any)[0] = []byte("whatever: the root is ours")
	for name, payload := range map[string]any{
		"good": fields(c), "without optional fields": minimal, "foreign root in the bundle": forged,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := v.Verify(sign(t, c, payload)); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestZeroVerifierTrustsNobody(t *testing.T) {
	t.Parallel()
	c := newChain(t, "test", nil)
	if _, err := (&attestation.Verifier{Now: now}).Verify(sign(t, c, fields(c))); !errors.Is(err, attestation.ErrNotGenuine) {
		t.Fatalf("got %v, want %v", err, attestation.ErrNotGenuine)
	}
}

// An ECDSA signature has a twin that anybody can compute; that both verify is
// known, written down, and the reason why nothing may be keyed by a document.
func TestSignatureTwinVerifies(t *testing.T) {
	t.Parallel()
	c := newChain(t, "test", nil)
	m, err := c.SignMessage(encode(t, fields(c)))
	if err != nil {
		t.Fatal(err)
	}
	signature := m.Signature.([]byte)
	s := new(big.Int).SetBytes(signature[48:])
	s.Sub(elliptic.P384().Params().N, s).FillBytes(signature[48:])
	v := attestation.Verifier{Roots: []*x509.Certificate{c.Root()}, Now: now}
	if _, err := v.Verify(encode(t, m)); err != nil {
		t.Fatal(err)
	}
}

func ExampleVerifier() {
	root, err := attestation.AWSRoot()
	if err != nil {
		fmt.Println(err)
		return
	}
	v := attestation.Verifier{Roots: []*x509.Certificate{root}}
	d, err := v.Verify([]byte("from the network"))
	fmt.Println(d == nil, errors.Is(err, attestation.ErrNotGenuine))
	// Output: true true
}
