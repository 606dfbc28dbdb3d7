package attestation_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/corridor-enclave/corridor/attestation"
)

// addDocuments seeds a fuzz target with the real documents and the broken ones.
func addDocuments(f *testing.F) {
	f.Helper()
	real, err := filepath.Glob(filepath.Join("testdata", "*.cose"))
	if err != nil || len(real) < 3 {
		f.Fatalf("found %d real documents in testdata (%v), want at least 3", len(real), err)
	}
	for _, name := range real {
		raw, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	c := newChain(f, "test", nil)
	f.Add(sign(f, c, fields(c)))
	for _, b := range brokenDocuments(f, c) {
		f.Add(b.raw)
	}
}

// FuzzParseDocument holds that what is parsed keeps to every limit, and that a
// refusal is of the promised kind.
func FuzzParseDocument(f *testing.F) {
	addDocuments(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		u, err := attestation.Parse(raw)
		if err != nil {
			var refused *attestation.Error
			if u != nil || !errors.Is(err, attestation.ErrNotGenuine) || !errors.As(err, &refused) || refused.Step != attestation.StepDocument {
				t.Fatalf("got claims: %v, error of no kind: %v", u != nil, err)
			}
			return
		}
		if u.ModuleID == "" || len(u.Certificate) == 0 || len(u.CABundle) == 0 || len(u.PCRs) == 0 || u.Timestamp.Year() > 9999 {
			t.Fatalf("parsed without a mandatory field: %+v", u.Claims)
		}
		for i, value := range u.PCRs {
			if i < 0 || i > 31 || len(value) != 48 {
				t.Fatalf("PCR%d of %d bytes", i, len(value))
			}
		}
		if len(u.Nonce) > 1024 || len(u.UserData) > 1024 || len(u.PublicKey) > 1024 {
			t.Fatal("a field is too long")
		}
	})
}

// FuzzVerify holds that nothing verifies but documents that an authority of the
// test has signed, whatever is done to them: what is accepted has the claims of
// one of them.
func FuzzVerify(f *testing.F) {
	addDocuments(f)
	c := newChain(f, "test", nil)
	signed, err := attestation.Parse(sign(f, c, fields(c)))
	if err != nil {
		f.Fatal(err)
	}
	v := attestation.Verifier{Roots: []*x509.Certificate{c.Root()}, Now: now}
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, err := v.Verify(raw)
		if err != nil {
			if d != nil {
				t.Fatal("both a document and an error")
			}
			return
		}
		if !bytes.Equal(d.Certificate, signed.Certificate) || !bytes.Equal(d.Nonce, signed.Nonce) || d.ModuleID != signed.ModuleID {
			t.Fatalf("a forged document verifies: %x", raw)
		}
	})
}
