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
}

// Check compares the document with the request at the time now. Errors match
// ErrNotFresh.
func (f Freshness) Check(d *Document, now time.Time) error {
	if err := f.CheckNonce(d); err != nil {
		return err
	}
	return f.CheckTime(d, now)
}

// CheckNonce is the first half of Check.
func (f Freshness) CheckNonce(d *Document) error {
	if len(f.Nonce) == 0 {
		return refuse(ErrNotFresh, StepNonce, "no nonce was asked for")
	}
	if d.Nonce == nil {
		return refuse(ErrNotFresh, StepNonce, "the document has none")
	}
	if subtle.ConstantTimeCompare(f.Nonce, d.Nonce) != 1 {
		return refuse(ErrNotFresh, StepNonce, "the document answers another request")
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
