package attestationtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"time"
)

// LeafLifetime is how long a leaf certificate lives, as on the real module.
const LeafLifetime = 3*time.Hour + 3*time.Second

// The levels of a Chain, as on the real module.
const (
	LevelRoot     = iota // trusted by the verifier
	LevelRegion          // path length 2
	LevelZone            // path length 1
	LevelInstance        // path length 0
	LevelLeaf            // signs documents
	levels
)

// A Level is one certificate of a Chain before it is issued.
type Level struct {
	Template *x509.Certificate
	Key      crypto.Signer
}

// A Chain is a public key infrastructure shaped like the real module's: a root,
// three intermediates and a leaf, all on P-384. Everything in it follows from
// the seed and the time, byte for byte; the root follows from the seed alone.
type Chain struct {
	Certificates []*x509.Certificate // root first
	leaf         crypto.Signer
}

// NewChain issues the chain of a seed, with a leaf valid from notBefore. Before
// a certificate is issued, edit may change its template or its key, to make a
// chain that has to be refused; nil means that none is.
func NewChain(seed string, notBefore time.Time, edit func(level int, l *Level)) (*Chain, error) {
	c := &Chain{}
	var parent *x509.Certificate
	var signer crypto.Signer
	for level := range levels {
		l, err := newLevel(seed, level, notBefore)
		if err != nil {
			return nil, err
		}
		if edit != nil {
			edit(level, l)
		}
		if level == LevelRoot {
			parent, signer = l.Template, l.Key
		}
		// No source of randomness: signatures follow RFC 6979.
		der, err := x509.CreateCertificate(nil, l.Template, parent, l.Key.Public(), signer)
		if err != nil {
			return nil, fmt.Errorf("attestationtest: issue certificate %d: %w", level, err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("attestationtest: issue certificate %d: %w", level, err)
		}
		c.Certificates = append(c.Certificates, cert)
		parent, signer = cert, l.Key
	}
	c.leaf = signer
	return c, nil
}

func newLevel(seed string, level int, notBefore time.Time) (*Level, error) {
	name := [levels]string{"root", "region", "zone", "instance", "leaf"}[level]
	purpose := name
	if level == LevelLeaf {
		purpose = fmt.Sprintf("leaf %d", notBefore.Unix())
	}
	key, err := deriveKey(seed, purpose)
	if err != nil {
		return nil, err
	}
	serial, err := derive(seed, "serial "+purpose, 15)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          new(big.Int).SetBytes(serial),
		Subject:               subject(seed, name),
		NotBefore:             time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), // testing/synctest begins in 2000
		NotAfter:              time.Date(2049, 12, 31, 0, 0, 0, 0, time.UTC),
		SignatureAlgorithm:    x509.ECDSAWithSHA384,
		BasicConstraintsValid: true,
		IsCA:                  level != LevelLeaf,
	}
	switch level {
	case LevelRoot:
		template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature
		template.MaxPathLen = -1
	case LevelLeaf:
		template.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment
		template.NotBefore = notBefore
		template.NotAfter = notBefore.Add(LeafLifetime)
	default:
		template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
		template.MaxPathLen = LevelInstance - level
		template.MaxPathLenZero = true
	}
	return &Level{Template: template, Key: key}, nil
}

// subject names the authority after its seed, so that a wrong root is noticed by
// its name, and says that it is no real one.
func subject(seed, name string) pkix.Name {
	id := sha256.Sum256([]byte(seed))
	return pkix.Name{
		CommonName:         fmt.Sprintf("%s.%x.simulated.nitro-enclaves", name, id[:4]),
		Organization:       []string{"Corridor"},
		OrganizationalUnit: []string{"simulated module that proves nothing"},
	}
}

// Bundle returns the chain's CA certificates as a document carries them: DER,
// root first, without the leaf.
func (c *Chain) Bundle() [][]byte {
	var bundle [][]byte
	for _, cert := range c.Certificates[:LevelLeaf] {
		bundle = append(bundle, cert.Raw)
	}
	return bundle
}

// Leaf returns the certificate whose key signs.
func (c *Chain) Leaf() *x509.Certificate { return c.Certificates[LevelLeaf] }

// Root returns the certificate to trust.
func (c *Chain) Root() *x509.Certificate { return c.Certificates[LevelRoot] }

// Sign returns the leaf's raw signature, r and s, over a message. Only a leaf
// with an ECDSA key can sign.
func (c *Chain) Sign(message []byte) ([]byte, error) {
	key, ok := c.leaf.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("attestationtest: sign: key is %T instead of ECDSA", c.leaf)
	}
	digest := sha512.Sum384(message)
	der, err := key.Sign(nil, digest[:], crypto.SHA384)
	if err != nil {
		return nil, fmt.Errorf("attestationtest: sign: %w", err)
	}
	var signature struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &signature); err != nil {
		return nil, fmt.Errorf("attestationtest: sign: %w", err)
	}
	size := (key.Curve.Params().BitSize + 7) / 8
	raw := make([]byte, 2*size)
	signature.R.FillBytes(raw[:size])
	signature.S.FillBytes(raw[size:])
	return raw, nil
}

// deriveKey returns the key of P-384 that belongs to seed and purpose.
func deriveKey(seed, purpose string) (*ecdsa.PrivateKey, error) {
	const size = 48
	for attempt := 0; ; attempt++ {
		raw, err := derive(seed, fmt.Sprintf("key %d %s", attempt, purpose), size)
		if err != nil {
			return nil, err
		}
		key, err := ecdsa.ParseRawPrivateKey(elliptic.P384(), raw)
		if err == nil {
			return key, nil
		}
		if attempt == 8 { // one failure has a chance of 2^-190
			return nil, fmt.Errorf("attestationtest: derive key: %w", err)
		}
	}
}

// derive expands the seed to n bytes for one purpose.
func derive(seed, purpose string, n int) ([]byte, error) {
	b, err := hkdf.Key(sha512.New384, []byte(seed), nil, "corridor attestationtest "+purpose, n)
	if err != nil {
		return nil, fmt.Errorf("attestationtest: derive %s: %w", purpose, err)
	}
	return b, nil
}
