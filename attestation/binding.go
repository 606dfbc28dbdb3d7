package attestation

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"slices"
)

// An Endpoint is what a document says of the other end of a TLS connection.
type Endpoint struct {
	// Keys are SHA-256 digests of the SubjectPublicKeyInfo of every key that ends
	// TLS there. A document in nitriding's layout names none.
	Keys []Digest
	// Certificates are SHA-256 digests of leaf certificates. They count only
	// where there are no keys: certificates are renewed, keys stay.
	Certificates []Digest
	// App is what the app has set, Config the digest of the configuration that
	// the enclave was started with; zero if there is none.
	App, Config Digest
}

// EndpointOf returns what the document says of the other end, in Corridor's form
// or in nitriding's. A document of another purpose says nothing of it. Errors
// match ErrNotThisConnection.
func EndpointOf(d *Document) (Endpoint, error) {
	if !IsStatement(d.UserData) {
		cert, app, err := splitUserData(d.UserData)
		if err != nil {
			return Endpoint{}, refuse(ErrNotThisConnection, StepBinding, "%v", err)
		}
		return Endpoint{Certificates: []Digest{cert}, App: app}, nil
	}
	s, err := ParseStatement(d.UserData)
	if err != nil {
		return Endpoint{}, refuse(ErrNotThisConnection, StepBinding, "%v", err)
	}
	if !s.Purpose.provesConnection() {
		return Endpoint{}, refuse(ErrNotThisConnection, StepBinding, "the document is of purpose %v, which proves no connection", s.Purpose)
	}
	return Endpoint{Keys: s.Keys, Certificates: s.Certificates, App: s.App, Config: s.Config}, nil
}

// Check says whether leaf is the other end: the certificate that was shown on
// the connection, whose key its holder has proven to have. Errors match
// ErrNotThisConnection.
func (e Endpoint) Check(leaf *x509.Certificate) error {
	if leaf == nil {
		return refuse(ErrNotThisConnection, StepBinding, "the connection has no certificate")
	}
	named, seen, what := e.Keys, sha256.Sum256(leaf.RawSubjectPublicKeyInfo), "key"
	if len(e.Keys) == 0 {
		named, seen, what = e.Certificates, sha256.Sum256(leaf.Raw), "certificate"
	}
	if slices.ContainsFunc(named, func(d Digest) bool { return subtle.ConstantTimeCompare(d[:], seen[:]) == 1 }) {
		return nil
	}
	return refuse(ErrNotThisConnection, StepBinding, "the document does not name the %s of this connection, %x", what, seen[:8])
}
