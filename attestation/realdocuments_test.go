package attestation_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/attestation"
)

// readDocument returns a real document from testdata.
func readDocument(t testing.TB, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func awsRoots(t testing.TB) []*x509.Certificate {
	t.Helper()
	root, err := attestation.AWSRoot()
	if err != nil {
		t.Fatal(err)
	}
	return []*x509.Certificate{root}
}

func at(s string) func() time.Time {
	return func() time.Time {
		t, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			panic(err)
		}
		return t
	}
}

// The fingerprint is the one of AWS's page on verifying the root of trust.
func TestAWSRootIsThePublishedOne(t *testing.T) {
	t.Parallel()
	const published = "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"
	root := awsRoots(t)[0]
	if got := sha256.Sum256(root.Raw); hex.EncodeToString(got[:]) != published {
		t.Fatalf("fingerprint %x, want %s", got, published)
	}
}

func TestRealDocuments(t *testing.T) {
	t.Parallel()
	ones := bytes.Repeat([]byte{1}, 1024)
	tests := []struct {
		file, taken, moduleID string
		nonce, userData       []byte
		publicKey             int
		chain                 int
		debug                 bool
		before, after         string // times at which its certificates are not valid
	}{
		{
			file: "aws-a.cose", taken: "2024-09-07T14:37:39.545Z", moduleID: "i-0a22e5c5f24d22174-enc0191cceb4289903f",
			nonce: ones, userData: ones, publicKey: 1024, chain: 5,
			before: "2024-09-07T14:37:35Z", after: "2024-09-07T17:37:40Z",
		},
		{
			file: "aws-b-debug.cose", taken: "2024-09-07T14:38:06.508Z", moduleID: "i-0a22e5c5f24d22174-enc0191ccebaf8feaba",
			nonce: ones, userData: ones, publicKey: 1024, chain: 5, debug: true,
			before: "2024-09-07T14:38:02Z", after: "2024-09-07T17:38:07Z",
		},
		{
			file: "aws-c.cose", taken: "2024-12-13T07:37:58.96Z", moduleID: "i-0f1cd77d37fd8bcc9-enc018e7aa61e2040ff",
			publicKey: 64, chain: 5,
			before: "2024-12-13T05:57:41Z", after: "2024-12-13T08:57:46Z",
		},
	}
	for _, tt := range tests {
		t.Run(tt.file, func(t *testing.T) {
			t.Parallel()
			raw := readDocument(t, tt.file)
			for _, when := range []string{tt.before, tt.after} {
				v := attestation.Verifier{Roots: awsRoots(t), Now: at(when)}
				if d, err := v.Verify(raw); d != nil || !errors.Is(err, attestation.ErrNotFresh) {
					t.Errorf("at %s: got a document: %v, %v; want %v", when, d != nil, err, attestation.ErrNotFresh)
				}
			}
			v := attestation.Verifier{Roots: awsRoots(t), Now: at(tt.taken)}
			d, err := v.Verify(raw)
			if err != nil {
				t.Fatal(err)
			}
			if got := d.Timestamp.Format(time.RFC3339Nano); got != tt.taken || d.ModuleID != tt.moduleID {
				t.Errorf("made by %s at %s, want %s at %s", d.ModuleID, got, tt.moduleID, tt.taken)
			}
			if !bytes.Equal(d.Nonce, tt.nonce) || !bytes.Equal(d.UserData, tt.userData) || len(d.PublicKey) != tt.publicKey {
				t.Errorf("nonce, user data or public key differ: %d, %d, %d bytes", len(d.Nonce), len(d.UserData), len(d.PublicKey))
			}
			if len(d.Chain) != tt.chain || len(d.PCRs) != 16 || d.InDebugMode() != tt.debug {
				t.Errorf("chain of %d, %d PCRs, debug %v", len(d.Chain), len(d.PCRs), d.InDebugMode())
			}
		})
	}
}

// A tag is allowed in front; the rest of the document has one form.
func TestTaggedDocument(t *testing.T) {
	t.Parallel()
	v := attestation.Verifier{Roots: awsRoots(t), Now: at("2024-12-13T07:38:00Z")}
	tagged := append([]byte{0xd2}, readDocument(t, "aws-c.cose")...)
	if _, err := v.Verify(tagged); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(append([]byte{0xd2}, tagged...)); !errors.Is(err, attestation.ErrNotGenuine) {
		t.Fatalf("two tags: got %v, want %v", err, attestation.ErrNotGenuine)
	}
}
