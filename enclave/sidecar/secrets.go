package sidecar

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/corridor-enclave/corridor/attestation"
	"github.com/corridor-enclave/corridor/attestation/cms"
	"github.com/corridor-enclave/corridor/attestation/nsm"
	"github.com/corridor-enclave/corridor/enclave/config"
	"github.com/corridor-enclave/corridor/enclave/kms"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

const (
	// secretsTimeout is how long KMS may be out of reach: the link comes up while
	// it is tried.
	secretsTimeout = time.Minute
	// secretsPause is between two tries.
	secretsPause = time.Second
)

// errNoCA reports a file without a certificate.
var errNoCA = errors.New("no certificate in PEM")

// beginSecrets has KMS decrypt what the app is to be given. An app without its
// secrets is not started.
func (s *Sidecar) beginSecrets(ctx context.Context) error {
	client, err := s.newKMS()
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, secretsTimeout)
	defer cancel()
	s.secrets = make(map[string][]byte)
	for _, secret := range s.cfg.Settings.Secrets.List {
		plaintext, err := s.decrypt(ctx, client, secret)
		if err != nil {
			return fmt.Errorf("--secret %s: %w", secret.Name, err)
		}
		s.secrets[secret.Name] = plaintext
	}
	s.cfg.Log.Info("secrets decrypted", "number", len(s.secrets))
	return nil
}

func (s *Sidecar) decrypt(ctx context.Context, client *kms.Client, secret config.Secret) (plaintext []byte, err error) {
	err = retry(ctx, func() error {
		plaintext, err = client.Decrypt(ctx, secret.Ciphertext, s.cfg.Settings.Secrets.Context)
		return err
	}, func(err error) {
		s.cfg.Log.Warn("KMS is not reached, trying again", "secret", secret.Name, "error", err)
	})
	return plaintext, err
}

// retry tries until that goes well, cannot, or ctx ends. It returns what the last
// try has returned.
func retry(ctx context.Context, try func() error, failed func(error)) error {
	for {
		err := try()
		if err == nil || final(err) {
			return err
		}
		failed(err)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(secretsPause):
		}
	}
}

// final says whether KMS, or whoever is in its place, has given an answer that
// another try will not change.
func final(err error) bool {
	for _, reason := range []error{kms.ErrRefused, kms.ErrNotSealed, cms.ErrMalformed, cms.ErrNotForThisKey} {
		if errors.Is(err, reason) {
			return true
		}
	}
	return false
}

func (s *Sidecar) newKMS() (*kms.Client, error) {
	set := s.cfg.Settings
	roots, err := readRoots(set.Secrets.CAFile)
	if err != nil {
		return nil, fmt.Errorf("--kms-ca %s: %w", set.Secrets.CAFile, err)
	}
	var dial kms.DialFunc // nil: as the app would, through the link or, simulated, the machine's network
	if s.outward != nil && !set.Egress.ByLink {
		dial = s.outward.DialContext
	}
	metadata := vsockconn.Addr{CID: set.Link.Parent, Port: set.Secrets.CredentialsPort}
	return kms.New(kms.Config{
		Region: set.Secrets.Region, Endpoint: set.Secrets.Endpoint, Roots: roots, Attest: s.attestKMS, DialContext: dial,
		Credentials: kms.NewInstanceRole(func(ctx context.Context) (net.Conn, error) { return s.cfg.Transport.Dial(ctx, metadata) }),
	})
}

// attestKMS makes a document that is good for key services and for nobody else.
func (s *Sidecar) attestKMS(ctx context.Context, publicKey []byte) ([]byte, error) {
	userData, err := attestation.Statement{Purpose: attestation.PurposeKMS, Config: s.config}.Encode()
	if err != nil {
		return nil, err
	}
	return s.session.Attest(ctx, nsm.AttestationRequest{UserData: userData, PublicKey: publicKey})
}

// readRoots returns nil, which is the system's, without a file.
func readRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, errNoCA
	}
	return roots, nil
}
