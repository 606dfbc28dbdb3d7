package kms_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/corridor-enclave/corridor/attestation"
	"github.com/corridor-enclave/corridor/attestation/attestationtest"
	"github.com/corridor-enclave/corridor/attestation/cms"
	"github.com/corridor-enclave/corridor/attestation/cms/cmstest"
	"github.com/corridor-enclave/corridor/attestation/nsm"
	"github.com/corridor-enclave/corridor/enclave/kms"
	"github.com/corridor-enclave/corridor/enclave/kms/kmstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newModule(t *testing.T, o attestationtest.Options) *attestationtest.Module {
	t.Helper()
	m, err := attestationtest.NewModule(o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// newService starts a KMS that accepts the module's image.
func newService(t *testing.T, m *attestationtest.Module) *kmstest.Service {
	t.Helper()
	pcrs := m.PCRs()
	policy, err := attestation.NewPolicy([]attestation.Accept{{PCRs: map[int][]byte{0: pcrs[0]}}}, false)
	if err != nil {
		t.Fatal(err)
	}
	return kmstest.New(t, m.RootPEM(), policy)
}

// newRole gets credentials from the service, over connections to loopback.
func newRole(t *testing.T, s *kmstest.Service) *kms.InstanceRole {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.ServeMetadata(t, l)
	return kms.NewInstanceRole(func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	})
}

// newClient is an enclave of the module's, that asks for documents of a purpose.
func newClient(t *testing.T, s *kmstest.Service, m *attestationtest.Module, purpose attestation.Purpose) *kms.Client {
	t.Helper()
	session := nsm.NewSession(m)
	t.Cleanup(func() { session.Close() })
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.CA)
	c, err := kms.New(kms.Config{
		Region: "eu-central-1", Endpoint: s.URL, Roots: roots, Credentials: newRole(t, s),
		Attest: func(ctx context.Context, publicKey []byte) ([]byte, error) {
			userData, err := attestation.Statement{Purpose: purpose}.Encode()
			if err != nil {
				return nil, err
			}
			return session.Attest(ctx, nsm.AttestationRequest{UserData: userData, PublicKey: publicKey})
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestRefused(t *testing.T) {
	t.Parallel()
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	image := attestationtest.Options{Seed: "kms"}
	tests := []struct {
		name    string
		options attestationtest.Options
		purpose attestation.Purpose
		edit    func(*kmstest.Service)
		context map[string]string
		err     error
		says    string
	}{
		{name: "module fails", options: attestationtest.Options{Seed: "kms", Fail: func(string) error { return nsm.InternalError }}, err: nsm.InternalError},
		{name: "other image", options: attestationtest.Options{Seed: "kms", PCRs: map[int][]byte{0: make([]byte, 47), 1: nil}}, err: nil},
		{name: "other root", options: attestationtest.Options{Seed: "other"}, err: kms.ErrRefused, says: "AccessDeniedException"},
		{name: "debug mode", options: attestationtest.Options{Seed: "kms", Debug: true}, err: kms.ErrRefused, says: "debug mode"},
		{name: "document of another purpose", purpose: attestation.PurposePeer, err: kms.ErrRefused, says: "something else"},
		{name: "other context", context: map[string]string{"a": "b"}, err: kms.ErrRefused, says: "InvalidCiphertextException"},
		{name: "plaintext", edit: func(s *kmstest.Service) { s.Lie = func(a map[string]any) { a["Plaintext"] = []byte("secret") } }, err: kms.ErrNotSealed},
		{name: "nothing", edit: func(s *kmstest.Service) { s.Lie = func(a map[string]any) { delete(a, "CiphertextForRecipient") } }, err: kms.ErrNotSealed},
		{name: "no envelope", edit: func(s *kmstest.Service) {
			s.Lie = func(a map[string]any) { a["CiphertextForRecipient"] = []byte("x") }
		}, err: cms.ErrMalformed},
		{name: "envelope for somebody else", edit: func(s *kmstest.Service) {
			sealed, err := cmstest.Seal(&other.PublicKey, []byte("secret"), 0)
			if err != nil {
				t.Error(err)
			}
			s.Lie = func(a map[string]any) { a["CiphertextForRecipient"] = sealed }
		}, err: cms.ErrNotForThisKey},
		{name: "no role", edit: func(s *kmstest.Service) { s.Metadata = http.NotFoundHandler() }, says: "instance metadata"},
	}
	for _, tt := range tests {
		if tt.name == "other image" {
			tt.options.PCRs = map[int][]byte{}
			for i, value := range newModule(t, image).PCRs() {
				tt.options.PCRs[i] = append([]byte(nil), value...)
			}
			tt.options.PCRs[0][0] ^= 1
			tt.err, tt.says = kms.ErrRefused, "PCR0 differs"
		}
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newService(t, newModule(t, image))
			if tt.edit != nil {
				tt.edit(s)
			}
			if tt.options.Seed == "" {
				tt.options.Seed = image.Seed
			}
			if tt.purpose == 0 {
				tt.purpose = attestation.PurposeKMS
			}
			c := newClient(t, s, newModule(t, tt.options), tt.purpose)
			got, err := c.Decrypt(t.Context(), s.Encrypt("secret", nil), tt.context)
			if err == nil || got != nil || tt.err != nil && !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("%q, %v; want %v and %q", got, err, tt.err, tt.says)
			}
		})
	}
}

// TestNotTrusted: an endpoint that only says that it is KMS learns nothing and is
// not believed.
func TestNotTrusted(t *testing.T) {
	t.Parallel()
	m := newModule(t, attestationtest.Options{})
	s := newService(t, m)
	s.CA = m.RootPEM() // of somebody else
	c := newClient(t, s, m, attestation.PurposeKMS)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var unknown x509.UnknownAuthorityError
	if _, err := c.Decrypt(ctx, []byte("x"), nil); !errors.As(err, &unknown) || s.Asked() != 0 {
		t.Errorf("%v, %d requests", err, s.Asked())
	}
}

func TestPlaintexts(t *testing.T) {
	t.Parallel()
	m := newModule(t, attestationtest.Options{})
	s := newService(t, m)
	c := newClient(t, s, m, attestation.PurposeKMS)
	where := map[string]string{"stage": "test"}
	s.Fail("ThrottlingException")
	if got, err := c.Decrypt(t.Context(), s.Encrypt("secret", where), where); err != nil || string(got) != "secret" {
		t.Errorf("Decrypt: %q, %v", got, err)
	}
	if s.Asked() != 2 {
		t.Errorf("%d requests, want the throttled one and another", s.Asked())
	}
	key, err := c.GenerateDataKey(t.Context(), "alias/a", where)
	if err != nil || len(key.Plaintext) != 32 {
		t.Fatalf("GenerateDataKey: %+v, %v", key, err)
	}
	if again, err := c.Decrypt(t.Context(), key.Ciphertext, where); err != nil || string(again) != string(key.Plaintext) {
		t.Errorf("the data key is not made again: %v", err)
	}
	if got, err := c.GenerateRandom(t.Context(), 100); err != nil || len(got) != 100 {
		t.Errorf("GenerateRandom: %d bytes, %v", len(got), err)
	}
	for _, n := range []int{0, -1, kms.MaxRandom + 1} {
		if _, err := c.GenerateRandom(t.Context(), n); err == nil {
			t.Errorf("%d random bytes were asked for", n)
		}
	}
}
