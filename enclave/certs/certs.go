// Package certs makes the certificate that the front presents. It does not vouch
// for it: the attestation document that names its hash does, so it needs no
// authority behind it.
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
	"time"
)

const (
	// Lifetime is how long a self-signed certificate is valid. Browsers refuse
	// more than 398 days even from an authority.
	Lifetime = 365 * 24 * time.Hour
	// Backdate is how long before its birth a certificate is valid already, for
	// clients whose clock is behind the enclave's.
	Backdate = time.Hour
	// maxCommonName is ub-common-name of RFC 5280, appendix A. A longer name
	// stands in the subject alternative name only, which is what clients read.
	maxCommonName = 64
	serialBits    = 128
)

// A SelfSigned is a certificate whose key was born in this process and never
// leaves it.
type SelfSigned struct {
	certificate *tls.Certificate
}

// NewSelfSigned makes an ECDSA P-256 key and a certificate for name, a DNS name
// or an IP address. It is valid from Backdate before now, for Lifetime.
func NewSelfSigned(name string, now time.Time) (*SelfSigned, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("certs: making a key: %w", err)
	}
	template, err := selfSignedTemplate(name, now)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("certs: signing the certificate for %q: %w", name, err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("certs: reading back the certificate for %q: %w", name, err)
	}
	return &SelfSigned{&tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}}, nil
}

// Current is the certificate to present, with its chain and its parsed leaf. It
// is the same on every call; the caller must not change it.
func (s *SelfSigned) Current() *tls.Certificate { return s.certificate }

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
