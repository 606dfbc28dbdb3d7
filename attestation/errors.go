package attestation

import (
	"errors"
	"fmt"
)

// The four verdicts against a document. All are final for the document at hand;
// only after ErrNotFresh is it worth asking for another one.
var (
	// ErrNotGenuine reports bytes that no module below the trusted roots has
	// signed, or that are no document at all. Close the connection.
	ErrNotGenuine = errors.New("not genuine")
	// ErrNotExpected reports a genuine document of another image than the ones
	// that the policy accepts, or of one in debug mode.
	ErrNotExpected = errors.New("not expected")
	// ErrNotFresh reports a genuine document that was made for somebody else
	// (nonce) or at another time, or whose certificates are not valid now.
	ErrNotFresh = errors.New("not fresh")
	// ErrNotThisConnection reports a document that does not name the key at the
	// other end of the connection: somebody relays it.
	ErrNotThisConnection = errors.New("not this connection")
)

// A Step is one of the checks that a document has to pass, in this order.
type Step string

// The steps. StepDocument to StepValidity belong to Verifier.Verify.
const (
	StepDocument  Step = "document"    // it is well-formed
	StepChain     Step = "chain"       // its certificates lead to a trusted root
	StepSignature Step = "signature"   // its leaf certificate's key has signed it
	StepValidity  Step = "validity"    // its certificates are valid now
	StepNonce     Step = "nonce"       // it answers this request
	StepTime      Step = "time"        // it is young
	StepPCRs      Step = "PCRs"        // its image is expected
	StepBinding   Step = "key binding" // it names the key of this connection
)

// An Error says which step a document failed, and why. It matches the verdict
// with errors.Is. Parse errors match ErrNotGenuine.
type Error struct {
	Step    Step
	Verdict error  // one of the four
	Reason  string // for people
}

// Error returns step, verdict and reason.
func (e *Error) Error() string {
	return fmt.Sprintf("attestation: %v: %s: %s", e.Verdict, e.Step, e.Reason)
}

// Unwrap returns the verdict.
func (e *Error) Unwrap() error { return e.Verdict }

func refuse(verdict error, step Step, format string, a ...any) error {
	return &Error{Step: step, Verdict: verdict, Reason: fmt.Sprintf(format, a...)}
}
