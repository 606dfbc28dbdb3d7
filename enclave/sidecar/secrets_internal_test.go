package sidecar

import (
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/corridor-enclave/corridor/attestation"
	"github.com/corridor-enclave/corridor/attestation/attestationtest"
	"github.com/corridor-enclave/corridor/enclave/config"
	"github.com/corridor-enclave/corridor/enclave/egress"
	"github.com/corridor-enclave/corridor/enclave/kms"
	"github.com/corridor-enclave/corridor/enclave/kms/kmstest"
	"github.com/corridor-enclave/corridor/tapstack/simvsock"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// newKMS starts a KMS that accepts a module's image, with its CA in a file, and the
// parent's relay to its metadata service.
func newKMS(t *testing.T, seed string) (s *kmstest.Service, args []string, transport vsockconn.Transport) {
	t.Helper()
	module, err := attestationtest.NewModule(attestationtest.Options{Seed: seed})
	if err != nil {
		t.Fatal(err)
	}
	policy, err := attestation.NewPolicy([]attestation.Accept{{PCRs: map[int][]byte{0: module.PCRs()[0]}}}, false)
	if err != nil {
		t.Fatal(err)
	}
	s = kmstest.New(t, module.RootPEM(), policy)
	dir, err := os.MkdirTemp("", "kms-") // short: it becomes the names of sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, s.CA, 0o600); err != nil {
		t.Fatal(err)
	}
	parent, err := simvsock.Dir(dir, vsockconn.CIDParent)
	if err != nil {
		t.Fatal(err)
	}
	relay, err := parent.Listen(1028)
	if err != nil {
		t.Fatal(err)
	}
	s.ServeMetadata(t, relay)
	if transport, err = simvsock.Dir(dir, 16); err != nil {
		t.Fatal(err)
	}
	return s, []string{"--link", "off", "--fqdn", "a", "--app-api", "tcp:127.0.0.1:0", "--kms-region", "r", "--kms-endpoint", s.URL, "--kms-ca", ca}, transport
}

func withSecret(args []string, ciphertext []byte) []string {
	return append(slices.Clone(args), "--secret", "db="+base64.StdEncoding.EncodeToString(ciphertext))
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	service, args, transport := newKMS(t, t.Name())
	s := newTestSidecar(t, withSecret(args, service.Encrypt("password", nil))...)
	s.cfg.Transport = transport
	if err := s.beginSecrets(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(s.secrets) != 1 || string(s.secrets["db"]) != "password" {
		t.Errorf("got %q", s.secrets)
	}
	names := make([]string, 0, len(s.parts()))
	for _, p := range s.parts() {
		names = append(names, p.name)
	}
	if order := strings.Join(names, " "); !strings.Contains(order, "module secrets listeners app API") {
		t.Errorf("begins in the order %s", order)
	}
	// Where the way out is the enclave's own, its policy holds for KMS as well.
	s.outward = egress.New(egress.Config{Log: s.cfg.Log})
	for _, link := range []bool{false, true} {
		s.cfg.Settings.Link.On = link
		client, err := s.newKMS()
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		if _, err := client.Decrypt(t.Context(), []byte("x"), nil); !errors.Is(err, egress.ErrDenied) {
			t.Errorf("past the policy, link %v: %v", link, err)
		}
	}
	if slices.ContainsFunc(newTestSidecar(t, args...).parts(), func(p part) bool { return p.name == "secrets" }) {
		t.Error("KMS is asked for nothing")
	}
}

func TestSecretsRefused(t *testing.T) {
	t.Parallel()
	service, args, transport := newKMS(t, "expected")
	ciphertext := service.Encrypt("password", nil)
	for _, tt := range []struct {
		name, seed string
		args       []string
		err        error
		says       string
	}{
		{"other image", "other", withSecret(args, ciphertext), kms.ErrRefused, "--secret db: kms: KMS refuses"},
		{"other ciphertext", "expected", withSecret(args, []byte("x")), kms.ErrRefused, "InvalidCiphertextException"},
		{"other context", "expected", append(withSecret(args, ciphertext), "--kms-context", "a=b"), kms.ErrRefused, "InvalidCiphertextException"},
		{"no CA", "expected", append(withSecret(args[:len(args)-2], ciphertext), "--kms-ca", "/dev/null"), errNoCA, "--kms-ca /dev/null"},
		{"missing CA", "expected", append(withSecret(args[:len(args)-2], ciphertext), "--kms-ca", "/missing"), os.ErrNotExist, "--kms-ca /missing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			settings, _, err := config.Parse(config.Simulated, tt.args, nil)
			if err != nil {
				t.Fatal(err)
			}
			s := newSidecar(t, settings, attestationtest.Options{Seed: tt.seed}, slog.New(slog.DiscardHandler))
			s.cfg.Transport = transport
			if err := s.beginSecrets(t.Context()); !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %v and %q", err, tt.err, tt.says)
			}
		})
	}
}

// TestSecretsAreWaitedFor: as long as nobody answers it is tried again, until the
// time is over.
func TestSecretsAreWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), secretsTimeout)
		defer cancel()
		nobody, tries := errors.New("nobody"), 0
		if err := retry(ctx, func() error { tries++; return nobody }, func(error) {}); !errors.Is(err, nobody) || tries < 60 || tries > 61 {
			t.Errorf("%d tries, %v", tries, err)
		}
		tries = 0
		if err := retry(t.Context(), func() error { tries++; return kms.ErrRefused }, func(error) {}); !errors.Is(err, kms.ErrRefused) || tries != 1 {
			t.Errorf("refused: %d tries, %v", tries, err)
		}
	})
}
