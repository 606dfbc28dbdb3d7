package attestation

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"time"
)

// A Verifier says whether a document is genuine: signed by a module whose
// certificate a trusted root vouches for. It knows nothing of what its caller
// expects. The zero value trusts nobody. It is safe for concurrent use.
type Verifier struct {
	// Roots are the only certificates trusted; what a document brings along as
	// its root is ignored. The system's roots are never used.
	Roots []*x509.Certificate
	// Now is the time at which certificates have to be valid; nil means
	// time.Now. For an archived document give its own time, knowing that this
	// proves no more than that it was genuine then.
	Now func() time.Time
}

// Verify returns the document if and only if all of it holds: its structure, the
// chain from its leaf to a root, the leaf's signature over it, and the validity
// of every certificate now. Errors are of type *Error and match ErrNotGenuine,
// or ErrNotFresh where only validity fails: then the document was genuine once.
func (v *Verifier) Verify(raw []byte) (*Document, error) {
	u, err := Parse(raw)
	if err != nil {
		return nil, err
	}
	chain, err := v.chain(u)
	if err != nil {
		return nil, refuse(ErrNotGenuine, StepChain, "%v", err)
	}
	key, err := keyOf(chain[0])
	if err != nil {
		return nil, refuse(ErrNotGenuine, StepChain, "%s: %v", certificateName(0, len(chain)), err)
	}
	if !verifyES384(key, u.payload, u.signature) {
		return nil, refuse(ErrNotGenuine, StepSignature, "the leaf's key has not signed the document")
	}
	if err := v.checkValidity(chain); err != nil {
		return nil, refuse(ErrNotFresh, StepValidity, "%v", err)
	}
	return &Document{Claims: u.Claims, Chain: chain}, nil
}

// chain parses the certificates and returns them leaf first, with a trusted
// root last, all signatures and constraints checked. There is no search: the
// order is the document's, and cabundle[0] is replaced by a root of ours.
//
//	Roots ──► cabundle[1] ──► ... ──► cabundle[n-1] ──► certificate
//
// crypto/x509's own Verify is not used: it would search, take certificates that
// the document does not chain through, and judge names and extended key usages,
// which mean nothing here.
func (v *Verifier) chain(u *Unverified) ([]*x509.Certificate, error) {
	ders := [][]byte{u.Certificate}
	for i := len(u.CABundle) - 1; i >= 1; i-- {
		ders = append(ders, u.CABundle[i])
	}
	length := len(ders) + 1
	chain := make([]*x509.Certificate, 0, length)
	for depth, der := range ders {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("%s: %v", certificateName(depth, length), err)
		}
		if bytes.Equal(cert.RawIssuer, cert.RawSubject) {
			return nil, fmt.Errorf("%s: issued by itself", certificateName(depth, length))
		}
		chain = append(chain, cert)
	}
	root, err := v.rootOf(chain[len(chain)-1])
	if err != nil {
		return nil, err
	}
	chain = append(chain, root)
	for depth, cert := range chain {
		if err := checkCertificate(cert, depth); err != nil {
			return nil, fmt.Errorf("%s: %v", certificateName(depth, length), err)
		}
	}
	for depth := range length - 2 { // the one below the root is done
		if err := checkIssued(chain[depth], chain[depth+1]); err != nil {
			return nil, fmt.Errorf("%s: %v", certificateName(depth, length), err)
		}
	}
	return chain, nil
}

// rootOf finds the root that has issued top. Where several roots bear the same
// name the signature decides.
func (v *Verifier) rootOf(top *x509.Certificate) (*x509.Certificate, error) {
	if len(v.Roots) == 0 {
		return nil, errors.New("no root is trusted")
	}
	var named *x509.Certificate
	for _, root := range v.Roots {
		if !bytes.Equal(top.RawIssuer, root.RawSubject) {
			continue
		}
		if top.CheckSignatureFrom(root) == nil {
			return root, nil
		}
		named = root
	}
	if named != nil {
		return nil, fmt.Errorf("the trusted root %q has not signed the first certificate below it", named.Subject)
	}
	return nil, fmt.Errorf("no trusted root is called %q", top.Issuer)
}

// certificateName tells people which certificate is meant, by its place in the
// document.
func certificateName(depth, length int) string {
	switch depth {
	case 0:
		return "certificate"
	case length - 1:
		return "trusted root"
	}
	return fmt.Sprintf("cabundle[%d]", length-1-depth)
}

// checkCertificate checks one certificate by itself; depth 0 is the leaf, and
// for a CA depth-1 is the number of CAs below it.
func checkCertificate(cert *x509.Certificate, depth int) error {
	if cert.Version != 3 {
		return fmt.Errorf("X.509 version %d instead of 3", cert.Version)
	}
	if _, err := keyOf(cert); err != nil {
		return err
	}
	if cert.SignatureAlgorithm != x509.ECDSAWithSHA384 {
		return fmt.Errorf("signed with %v instead of ECDSA-SHA384", cert.SignatureAlgorithm)
	}
	if err := checkExtensions(cert); err != nil {
		return err
	}
	if !cert.BasicConstraintsValid {
		return errors.New("no basic constraints")
	}
	if depth == 0 {
		return checkLeafUsage(cert)
	}
	return checkCAUsage(cert, depth-1)
}

func checkLeafUsage(cert *x509.Certificate) error {
	if cert.IsCA {
		return errors.New("the leaf is a CA")
	}
	if cert.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return errors.New("key usage lacks digitalSignature")
	}
	return nil
}

// checkCAUsage counts every CA below, as RFC 5280, section 4.2.1.9, does where
// none is issued by itself.
func checkCAUsage(cert *x509.Certificate, below int) error {
	if !cert.IsCA {
		return errors.New("not a CA")
	}
	if cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return errors.New("key usage lacks keyCertSign")
	}
	limited := cert.MaxPathLen > 0 || cert.MaxPathLen == 0 && cert.MaxPathLenZero
	if limited && below > cert.MaxPathLen {
		return fmt.Errorf("path length %d, but %d CAs below", cert.MaxPathLen, below)
	}
	return nil
}

// checkExtensions refuses what would have to be evaluated to be respected: every
// critical extension but the two that are, and name constraints and extended key
// usages always. No certificate of the module's has them.
func checkExtensions(cert *x509.Certificate) error {
	for _, e := range cert.Extensions {
		switch {
		case e.Id.Equal(oidBasicConstraints), e.Id.Equal(oidKeyUsage):
		case e.Id.Equal(oidNameConstraints), e.Id.Equal(oidExtKeyUsage):
			return fmt.Errorf("extension %v does not belong here", e.Id)
		case e.Critical:
			return fmt.Errorf("critical extension %v is not understood", e.Id)
		}
	}
	return nil
}

// Object identifiers of RFC 5280, sections 4.2.1.3, 4.2.1.9, 4.2.1.10, 4.2.1.12.
var (
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidNameConstraints  = asn1.ObjectIdentifier{2, 5, 29, 30}
	oidExtKeyUsage      = asn1.ObjectIdentifier{2, 5, 29, 37}
)

func checkIssued(child, parent *x509.Certificate) error {
	if !bytes.Equal(child.RawIssuer, parent.RawSubject) {
		return fmt.Errorf("issued by %q, but the certificate above is %q", child.Issuer, parent.Subject)
	}
	if err := child.CheckSignatureFrom(parent); err != nil {
		return fmt.Errorf("%q has not signed it: %v", parent.Subject, err)
	}
	return nil
}

// keyOf returns the key of a certificate, which has to be on P-384: other curves
// are refused by identity, not by a name that might be misspelt.
func keyOf(cert *x509.Certificate) (*ecdsa.PublicKey, error) {
	key, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("key is %v instead of ECDSA", cert.PublicKeyAlgorithm)
	}
	if key.Curve != elliptic.P384() {
		return nil, fmt.Errorf("key is on %s instead of P-384", key.Curve.Params().Name)
	}
	return key, nil
}

func (v *Verifier) checkValidity(chain []*x509.Certificate) error {
	now := time.Now
	if v.Now != nil {
		now = v.Now
	}
	at := now()
	for depth, cert := range chain {
		name := certificateName(depth, len(chain))
		if at.Before(cert.NotBefore) {
			return fmt.Errorf("%s is valid from %s, now is %s", name, rfc3339(cert.NotBefore), rfc3339(at))
		}
		if at.After(cert.NotAfter) {
			return fmt.Errorf("%s was valid until %s, now is %s", name, rfc3339(cert.NotAfter), rfc3339(at))
		}
	}
	return nil
}

func rfc3339(t time.Time) string { return t.UTC().Format(time.RFC3339) }
