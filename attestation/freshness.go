package attestation

import (
	"crypto/subtle"
	"time"
)

// DefaultMaxAge is the age that Freshness allows where none is given.
const DefaultMaxAge = 5 * time.Minute

// Freshness says whether a document was made for this request, just now. The
// nonce alone proves it; the time limits the harm of a nonce that is not random,
// and shows a clock that is wrong.
type Freshness struct {
	// Nonce is what this request has asked for: random, and used once. A
	// Freshness without one refuses every document.
	Nonce []byte
	// MaxAge is how far the document's time may be from now, before or after;
	// 0 means DefaultMaxAge.
	MaxAge time.Duration
	// Proof leads from the nonce to the document of a tree; nil where none came.
	Proof *Proof
	// Exporter is the tls-exporter of the connection over which the nonce was
	// sent, if the document was asked to name it; else nil.
	Exporter []byte
}

// Check compares the document with the request at the time now. Errors match
// ErrNotFresh.
func (f Freshness) Check(d *Document, now time.Time) error {
	if err := f.CheckNonce(d); err != nil {
		return err
	}
	return f.CheckTime(d, now)
}

// CheckNonce is the first half of Check. It matches ErrNotThisConnection where an
// exporter was asked for and the document names another one or none.
func (f Freshness) CheckNonce(d *Document) error {
	if len(f.Nonce) == 0 {
		return refuse(ErrNotFresh, StepNonce, "no nonce was asked for")
	}
	if IsStatement(d.UserData) {
		return f.checkTree(d)
	}
	if f.Exporter != nil {
		return refuse(ErrNotThisConnection, StepBinding, "the document names no connection, only a certificate")
	}
	if d.Nonce == nil {
		return refuse(ErrNotFresh, StepNonce, "the document has none")
	}
	if subtle.ConstantTimeCompare(f.Nonce, d.Nonce) != 1 {
		return refuse(ErrNotFresh, StepNonce, "the document answers another request")
	}
	return nil
}

func (f Freshness) checkTree(d *Document) error {
	s, err := ParseStatement(d.UserData)
	switch {
	case err != nil:
		return refuse(ErrNotFresh, StepNonce, "%v", err)
	case s.Purpose != PurposeBatch:
		return refuse(ErrNotFresh, StepNonce, "the document is of purpose %v, which answers no nonce of a client's", s.Purpose)
	case f.Proof == nil:
		return refuse(ErrNotFresh, StepNonce, "no proof leads to the document's tree")
	case f.Proof.Size != s.Tree.Size:
		return refuse(ErrNotFresh, StepNonce, "the proof is for a tree of %d leaves, the document's has %d", f.Proof.Size, s.Tree.Size)
	case f.Exporter == nil && f.Proof.Exporter != nil:
		return refuse(ErrNotFresh, StepNonce, "the proof names a connection, and nobody asked for one")
	case subtle.ConstantTimeCompare(f.Exporter, f.Proof.Exporter) != 1:
		return refuse(ErrNotThisConnection, StepBinding, "the enclave has seen another TLS connection than this one")
	}
	leaf, err := LeafHash(f.Nonce, f.Exporter)
	if err == nil {
		err = checkPath(leaf, f.Proof.Index, f.Proof.Path, s.Tree)
	}
	if err != nil {
		return refuse(ErrNotFresh, StepNonce, "%v", err)
	}
	return nil
}

// CheckTime is the second half of Check.
func (f Freshness) CheckTime(d *Document, now time.Time) error {
	limit := f.MaxAge
	if limit == 0 {
		limit = DefaultMaxAge
	}
	age := now.Sub(d.Timestamp)
	if age > limit {
		return refuse(ErrNotFresh, StepTime, "the document is %v old, the limit is %v", age.Round(time.Second), limit)
	}
	if age < -limit {
		return refuse(ErrNotFresh, StepTime, "the document is %v ahead of this clock, the limit is %v", (-age).Round(time.Second), limit)
	}
	return nil
}
