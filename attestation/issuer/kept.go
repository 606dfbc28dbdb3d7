package issuer

import (
	"context"
	"crypto/x509"
	"fmt"
	"reflect"
	"time"

	"github.com/corridor-enclave/corridor/attestation"
)

// kept is the document for clients without a nonce. It is replaced when it is a
// minute old, when its certificate is about to end, and when what it states is
// not true any more.
type kept struct {
	turn      chan struct{} // holds a token while somebody looks or has it replaced
	document  []byte
	statement attestation.Statement
	until     time.Time
}

// Kept returns evidence without a proof, at most a minute old. It waits for the
// module, if it has to be asked, until ctx ends.
func (i *Issuer) Kept(ctx context.Context) (attestation.Evidence, error) {
	select {
	case i.kept.turn <- struct{}{}:
		defer func() { <-i.kept.turn }()
	case <-ctx.Done():
		return attestation.Evidence{}, fmt.Errorf("issuer: waiting for a document: %w", context.Cause(ctx))
	}
	k := &i.kept
	now, statement := i.cfg.Now(), i.cfg.Statement()
	statement.Purpose = attestation.PurposeClient
	if k.document != nil && now.Before(k.until) && reflect.DeepEqual(statement, k.statement) {
		return attestation.Evidence{Document: k.document}, nil
	}
	document, err := i.attest(ctx, statement)
	if err != nil {
		return attestation.Evidence{}, err
	}
	end, err := certificateEnd(document)
	if err != nil {
		return attestation.Evidence{}, err
	}
	k.document, k.statement = document, statement
	k.until = now.Add(min(keepFor, max(keepLeast, end.Add(-keepMargin).Sub(now))))
	return attestation.Evidence{Document: document}, nil
}

// certificateEnd returns until when the leaf certificate of the module's own
// document is valid.
func certificateEnd(document []byte) (time.Time, error) {
	u, err := attestation.Parse(document)
	if err != nil {
		return time.Time{}, fmt.Errorf("issuer: the module's document: %w", err)
	}
	leaf, err := x509.ParseCertificate(u.Certificate)
	if err != nil {
		return time.Time{}, fmt.Errorf("issuer: the module's certificate: %w", err)
	}
	return leaf.NotAfter, nil
}
