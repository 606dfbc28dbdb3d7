package front

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/corridor-enclave/corridor/attestation"
	"github.com/corridor-enclave/corridor/attestation/issuer"
)

const (
	// nonceSize is nitriding's, in bytes; its text form has twice as many digits.
	nonceSize = 20
	// maxAttesting is how many clients may wait for the module, which serves one
	// at a time in about a millisecond. More are told to come back.
	maxAttesting = 64
	// attestTimeout bounds the wait for the module.
	attestTimeout = 5 * time.Second

	withoutTLS   = "this simulation serves plain HTTP: there is no certificate that a document could be bound to\n"
	moduleBusy   = "too many clients wait for the security module\n"
	moduleFailed = "the security module gave no document\n"
	tooOften     = "too many documents are asked for\n"
)

// attest answers in the form that the client asks for, if it does not ask too often.
func (f *Front) attest(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Vary", "Accept")
	serve := f.attestation
	switch {
	case f.cfg.Evidence == nil || !accepts(r, jsonType):
	case f.cfg.Certificates == nil:
		answer(w, http.StatusNotFound, textType, withoutTLS)
		return
	default:
		serve = f.evidence
	}
	if !f.documents.allow(f.clientOf(r), time.Now()) {
		retryLater(w, http.StatusTooManyRequests, tooOften)
		return
	}
	serve(w, r)
}

// retryLater sends a client away for a while.
func retryLater(w http.ResponseWriter, status int, reason string) {
	w.Header().Set("Retry-After", retryAfter)
	answer(w, status, textType, reason)
}

// attestation answers as nitriding does: the document in base64, one line. Its
// user data binds the certificate that TLS presents and the app's key hash.
func (f *Front) attestation(w http.ResponseWriter, r *http.Request) {
	nonce, err := nonceOf(r.URL.RawQuery)
	if err != nil {
		answer(w, http.StatusBadRequest, textType, err.Error()+"\n")
		return
	}
	if f.cfg.Certificates == nil {
		answer(w, http.StatusNotFound, textType, withoutTLS)
		return
	}
	select {
	case f.attesting <- struct{}{}:
		defer func() { <-f.attesting }()
	default:
		retryLater(w, http.StatusServiceUnavailable, moduleBusy)
		return
	}
	document, err := f.document(r.Context(), nonce)
	if err != nil {
		retryLater(w, http.StatusServiceUnavailable, moduleFailed)
		return
	}
	answer(w, http.StatusOK, textType, base64.StdEncoding.EncodeToString(document)+"\n")
}

func (f *Front) document(ctx context.Context, nonce []byte) ([]byte, error) {
	bound, cancel := context.WithTimeout(ctx, attestTimeout)
	defer cancel()
	leaf := f.cfg.Certificates.Current().Certificate[0]
	document, err := f.cfg.Attester.Attest(bound, nonce, attestation.NitridingUserData(leaf, f.cfg.App.KeyHash()))
	f.noteModule(ctx, err)
	return document, err
}

// noteModule logs when the module begins to fail and when it is well again, not
// each failure: clients decide how many of those there are. ctx is the client's.
func (f *Front) noteModule(ctx context.Context, err error) {
	switch {
	case err == nil && f.moduleBad.CompareAndSwap(true, false):
		f.cfg.Log.Info("the security module answers again", "part", "front")
	case err != nil && !errors.Is(err, issuer.ErrBusy) && ctx.Err() == nil && f.moduleBad.CompareAndSwap(false, true):
		f.cfg.Log.Error("no attestation document", "part", "front", "error", err)
	}
}

// nonceOf takes the one nonce out of a raw query.
func nonceOf(rawQuery string) ([]byte, error) {
	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		return nil, errors.New("the query cannot be parsed")
	}
	values := query["nonce"]
	if len(values) == 0 {
		return nil, fmt.Errorf("the nonce is missing: add ?nonce= and %d hex digits of your choice", 2*nonceSize)
	}
	if len(values) > 1 {
		return nil, errors.New("the nonce is given more than once")
	}
	if got := len(values[0]); got != 2*nonceSize {
		return nil, fmt.Errorf("the nonce has %d characters instead of %d hex digits", got, 2*nonceSize)
	}
	nonce, err := hex.DecodeString(values[0])
	if err != nil {
		return nil, fmt.Errorf("the nonce is not made of %d hex digits", 2*nonceSize)
	}
	return nonce, nil
}
