// Package certs makes the certificate that the front presents, and renews it in
// time. It does not vouch for it: the attestation document that names its key and
// its hash does, so it needs no authority behind it.
package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"sync"
	"time"
)

const (
	// Lifetime is how long a self-signed certificate is valid. Browsers refuse
	// more than 398 days even from an authority.
	Lifetime = 365 * 24 * time.Hour
	// Backdate is how long before its birth a certificate is valid already, for
	// clients whose clock is behind the enclave's.
	Backdate = time.Hour
	// RenewBefore is how long before its end a certificate is replaced by another
	// one for the same key. Documents name the key, so that their readers need not
	// notice.
	RenewBefore = 90 * 24 * time.Hour
	// maxCommonName is ub-common-name of RFC 5280, appendix A. A longer name
	// stands in the subject alternative name only, which is what clients read.
	maxCommonName = 64
	serialBits    = 128
)

// A SelfSigned is a key that was born in this process and never leaves it, and the
// certificate for it. It is safe for concurrent use.
type SelfSigned struct {
	name string
	key  *ecdsa.PrivateKey
	now  func() time.Time

	mu       sync.Mutex
	current  *tls.Certificate
	previous *x509.Certificate // nil: there was none
}

// NewSelfSigned makes an ECDSA P-256 key and a certificate for name, a DNS name
// or an IP address. It is valid from Backdate before now, for Lifetime.
func NewSelfSigned(name string, now func() time.Time) (*SelfSigned, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("certs: making a key: %w", err)
	}
	s := &SelfSigned{name: name, key: key, now: now}
	if s.current, err = s.issue(now()); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *SelfSigned) issue(now time.Time) (*tls.Certificate, error) {
	template, err := selfSignedTemplate(s.name, now)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, s.key.Public(), s.key)
	if err != nil {
		return nil, fmt.Errorf("certs: signing the certificate for %q: %w", s.name, err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("certs: reading back the certificate for %q: %w", s.name, err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: s.key, Leaf: leaf}, nil
}

// Current is the certificate to present, with its chain and its parsed leaf, not
// to be changed. It is renewed here, when somebody asks for it: a certificate that
// nobody sees may end.
func (s *SelfSigned) Current() *tls.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if now.Before(s.current.Leaf.NotAfter.Add(-RenewBefore)) {
		return s.current
	}
	// What failed would be what the first one did without failing. The old one is
	// still valid for months, and the next client tries again.
	if renewed, err := s.issue(now); err == nil {
		s.previous, s.current = s.current.Leaf, renewed
	}
	return s.current
}

// InUse are the leaves that connections may have been shown and that are still
// valid: the current one, first, and the one before it.
func (s *SelfSigned) InUse() []*x509.Certificate {
	leaves := []*x509.Certificate{s.Current().Leaf}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.previous != nil && s.now().Before(s.previous.NotAfter) {
		leaves = append(leaves, s.previous)
	}
	return leaves
}

func selfSignedTemplate(name string, now time.Time) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), serialBits))
	if err != nil {
		return nil, fmt.Errorf("certs: making a serial number: %w", err)
	}
	t := &x509.Certificate{
		SerialNumber:          serial.Add(serial, big.NewInt(1)), // zero is not allowed (RFC 5280, 4.1.2.2)
		NotBefore:             now.Add(-Backdate),
		NotAfter:              now.Add(Lifetime - Backdate),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	if len(name) <= maxCommonName {
		t.Subject = pkix.Name{CommonName: name}
	}
	if ip := net.ParseIP(name); ip != nil {
		t.IPAddresses = []net.IP{ip}
	} else {
		t.DNSNames = []string{name}
	}
	return t, nil
}
