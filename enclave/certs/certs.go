// Package certs makes the certificate that the front presents, and replaces it and
// its key in time. It does not vouch for it: the attestation document that names its key and
// its hash does, so it needs no authority behind it.
package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"slices"
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
	// Announce is how long documents name a key before it is presented. Clients pin
	// what a document names for an hour, unless they want it longer.
	Announce = 2 * time.Hour
	// Overlap is how long documents name a key that is not presented any more:
	// longer than a TLS session may be resumed, which takes its old certificate
	// along (a week, RFC 8446, section 4.6.1).
	Overlap = 8 * 24 * time.Hour
	// MinKeyLifetime leaves each key more time in use than in waiting.
	MinKeyLifetime = 3 * 24 * time.Hour
	// maxRetired is such that all that are in use fit in a document.
	maxRetired = 4
	// maxCommonName is ub-common-name of RFC 5280, appendix A. A longer name
	// stands in the subject alternative name only, which is what clients read.
	maxCommonName = 64
	serialBits    = 128
)

// A SelfSigned holds the keys that were born in this process and never leave it,
// and the certificates for them. Each key goes through these states; documents name
// it in all of them, so that a client which has pinned an older document knows every
// key that it meets:
//
//	 KeyLifetime - Announce      Announce                     Overlap
//	 of the key before           ───────► presented ────────► retired ───────► forgotten
//	────────────────► announced           to new connections  old ones live on
//
// It is safe for concurrent use.
type SelfSigned struct {
	name        string
	keyLifetime time.Duration
	now         func() time.Time

	mu        sync.Mutex
	current   *tls.Certificate
	since     time.Time        // when current's key was first presented
	next      *tls.Certificate // announced; nil: none is due
	presentAt time.Time        // when next is presented
	retired   []retired        // oldest first
}

// A retired certificate is named until its time is over.
type retired struct {
	leaf  *x509.Certificate
	until time.Time
}

// NewSelfSigned makes an ECDSA P-256 key and a certificate for name, a DNS name
// or an IP address. It is valid from Backdate before now, for Lifetime. After
// keyLifetime another key takes its place; 0 means never.
func NewSelfSigned(name string, keyLifetime time.Duration, now func() time.Time) (*SelfSigned, error) {
	s := &SelfSigned{name: name, keyLifetime: keyLifetime, now: now, since: now()}
	var err error
	if s.current, err = s.issueNew(s.since); err != nil {
		return nil, err
	}
	return s, nil
}

// issueNew makes a key and a certificate for it.
func (s *SelfSigned) issueNew(now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("certs: making a key: %w", err)
	}
	return s.issue(key, now)
}

func (s *SelfSigned) issue(key crypto.Signer, now time.Time) (*tls.Certificate, error) {
	template, err := selfSignedTemplate(s.name, now)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("certs: signing the certificate for %q: %w", s.name, err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("certs: reading back the certificate for %q: %w", s.name, err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// Current is the certificate to present, with its chain and its parsed leaf, not
// to be changed. Keys and certificates take turns here and in InUse, when somebody
// asks for them: what nobody sees may end.
func (s *SelfSigned) Current() *tls.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advanceLocked(s.now())
	return s.current
}

// InUse are the leaves that connections are or may be shown: the current one, first,
// the announced one, and those before that are not forgotten.
func (s *SelfSigned) InUse() []*x509.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advanceLocked(s.now())
	leaves := []*x509.Certificate{s.current.Leaf}
	if s.next != nil {
		leaves = append(leaves, s.next.Leaf)
	}
	for _, r := range s.retired {
		leaves = append(leaves, r.leaf)
	}
	return leaves
}

// advanceLocked does what is due. What fails here would be what the first time did
// without failing: the old certificate is still valid for months, and the next
// client tries again.
func (s *SelfSigned) advanceLocked(now time.Time) {
	s.retired = slices.DeleteFunc(s.retired, func(r retired) bool {
		return !now.Before(r.until) || !now.Before(r.leaf.NotAfter)
	})
	if s.keyLifetime > 0 && s.next == nil && !now.Before(s.since.Add(s.keyLifetime-Announce)) {
		if next, err := s.issueNew(now); err == nil {
			s.next, s.presentAt = next, now.Add(Announce)
		}
	}
	if s.next != nil && !now.Before(s.presentAt) {
		s.retireLocked(now.Add(Overlap))
		s.current, s.next, s.since = s.next, nil, now
	}
	if !now.Before(s.current.Leaf.NotAfter.Add(-RenewBefore)) {
		if renewed, err := s.issue(s.current.PrivateKey.(crypto.Signer), now); err == nil {
			s.retireLocked(s.current.Leaf.NotAfter)
			s.current = renewed
		}
	}
}

func (s *SelfSigned) retireLocked(until time.Time) {
	s.retired = append(s.retired, retired{s.current.Leaf, until})
	if len(s.retired) > maxRetired {
		s.retired = s.retired[1:]
	}
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
