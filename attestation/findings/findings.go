// Package findings holds evidence against everything that a client can ask of it,
// and notes each check with its result, for people and as JSON. It goes on after a
// check has failed, so that all mistakes are seen at once. What the checks are,
// package attestation says; clients that need no more than yes or no use package
// client.
package findings

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/corridor-enclave/corridor/attestation"
)

// Codes of the verdicts, which command attest ends with.
const (
	Verified          = 0
	NotDone           = 1
	NotGenuine        = 3
	NotExpected       = 4
	NotFresh          = 5
	NotThisConnection = 6
)

// Code returns the verdict's code for an error of package attestation, NotDone for
// other errors, and Verified for none.
func Code(err error) int {
	switch {
	case err == nil:
		return Verified
	case errors.Is(err, attestation.ErrNotGenuine):
		return NotGenuine
	case errors.Is(err, attestation.ErrNotExpected):
		return NotExpected
	case errors.Is(err, attestation.ErrNotFresh):
		return NotFresh
	case errors.Is(err, attestation.ErrNotThisConnection):
		return NotThisConnection
	}
	return NotDone
}

// A Question is what evidence is held against.
type Question struct {
	Roots []*x509.Certificate
	// Policy says which images are expected. Nil leaves that open.
	Policy *attestation.Policy
	// Fresh is what was asked for.
	Fresh attestation.Freshness
	// Leaf is the certificate that the other end has shown. Nil leaves open whose
	// connection it is, as it is for whoever cannot see certificates.
	Leaf *x509.Certificate
	// Now is the clock.
	Now func() time.Time
}

// errOpen reports that all checks have passed that could be made, and that some
// could not.
var errOpen = errors.New("not everything could be checked")

// Examine runs all checks that can be run, notes each, and returns the gravest of
// the errors: the one with the lowest code. What is left open is an error too, the
// least of all.
func (r *Report) Examine(e attestation.Evidence, q Question) error {
	verifier := attestation.Verifier{Roots: q.Roots, Now: q.Now}
	d, err := verifier.Verify(e.Document)
	if err != nil {
		r.noteVerify(err)
		return err
	}
	r.noteGenuine(d, len(e.Document))
	now := q.Now()
	nonceErr := r.noteNonce(d, e, q.Fresh)
	timeErr := q.Fresh.CheckTime(d, now)
	r.Note(attestation.StepTime, timeErr, "made at %s, %v ago", d.Timestamp.Format(time.RFC3339), now.Sub(d.Timestamp).Round(time.Millisecond))
	policyErr := r.notePolicy(d, q.Policy, now)
	bindingErr := r.noteBinding(d, q)
	return gravest(nonceErr, timeErr, policyErr, bindingErr)
}

func (r *Report) noteNonce(d *attestation.Document, e attestation.Evidence, fresh attestation.Freshness) error {
	err := fresh.CheckNonce(d)
	switch shared := e.Proof; {
	case errors.Is(err, attestation.ErrNotThisConnection):
		r.Note(attestation.StepBinding, err, "")
	case shared != nil:
		r.Note(attestation.StepNonce, err, "%d random bytes, the ones sent: leaf %d of %d in the document's tree", len(fresh.Nonce), shared.Index, shared.Size)
	default:
		r.Note(attestation.StepNonce, err, "%d random bytes, the ones sent", len(fresh.Nonce))
	}
	return err
}

func (r *Report) notePolicy(d *attestation.Document, p *attestation.Policy, now time.Time) error {
	if p == nil {
		r.Warn(string(attestation.StepPCRs), "no image is expected, so the registers were compared with nothing")
		return errOpen
	}
	image, err := p.Check(d, now)
	r.Image = image
	r.Note(attestation.StepPCRs, err, "as listed for image %q", image)
	if err == nil && d.InDebugMode() {
		r.Warn("debug mode", "the parent can read this enclave's console")
	}
	return err
}

func (r *Report) noteBinding(d *attestation.Document, q Question) error {
	endpoint, err := attestation.EndpointOf(d)
	r.noteEndpoint(endpoint)
	switch {
	case err == nil && q.Leaf == nil:
		r.Warn(string(attestation.StepBinding), "the certificate of this connection cannot be seen from here")
		return errOpen
	case err == nil:
		err = endpoint.Check(q.Leaf)
	}
	r.Note(attestation.StepBinding, err, "%s", boundTo(endpoint, q.Fresh))
	return err
}

// boundTo says in words what the document names.
func boundTo(e attestation.Endpoint, f attestation.Freshness) string {
	switch {
	case f.Exporter != nil:
		return "the document names this TLS connection, and its key"
	case len(e.Keys) > 0:
		return "the document names the key of this connection"
	}
	return "the document names the certificate of this connection"
}

func gravest(errs ...error) error {
	var worst error
	for _, err := range errs {
		if err != nil && (worst == nil || worse(err, worst)) {
			worst = err
		}
	}
	return worst
}

// worse says whether a weighs more than b: what has failed is worse than what is
// open, and below that the lower code is.
func worse(a, b error) bool {
	if errors.Is(a, errOpen) || errors.Is(b, errOpen) {
		return !errors.Is(a, errOpen)
	}
	return Code(a) < Code(b)
}

// noteVerify adds the step at which verification ended, and those before it.
func (r *Report) noteVerify(err error) {
	var refused *attestation.Error
	if !errors.As(err, &refused) {
		r.Note(attestation.StepDocument, err, "")
		return
	}
	for _, step := range []attestation.Step{attestation.StepDocument, attestation.StepChain, attestation.StepSignature, attestation.StepValidity} {
		if step == refused.Step {
			r.Note(step, err, "")
			return
		}
		r.Pass(string(step), "")
	}
}

// noteGenuine adds the steps of a verification that has passed.
func (r *Report) noteGenuine(d *attestation.Document, size int) {
	root := d.Chain[len(d.Chain)-1]
	ends := d.Chain[0].NotAfter
	for _, cert := range d.Chain {
		if cert.NotAfter.Before(ends) {
			ends = cert.NotAfter
		}
	}
	r.Pass(string(attestation.StepDocument), "%d bytes of module %s", size, d.ModuleID)
	r.Pass(string(attestation.StepChain), "%d certificates below the trusted root %q", len(d.Chain)-1, root.Subject)
	r.Pass(string(attestation.StepSignature), "ES384, by the key of the leaf certificate")
	r.Pass(string(attestation.StepValidity), "all certificates, until %s", ends.UTC().Format(time.RFC3339))
	r.Document = Printable(d.Claims)
}

// noteEndpoint adds what the document says beside its keys, and the keys.
func (r *Report) noteEndpoint(e attestation.Endpoint) {
	r.Keys, r.Certificates = inHex(e.Keys), inHex(e.Certificates)
	if e.App != (attestation.Digest{}) {
		r.AppHash = fmt.Sprintf("%x", e.App)
	}
	if e.Config != (attestation.Digest{}) {
		r.Config = fmt.Sprintf("%x", e.Config)
	}
}

func inHex(digests []attestation.Digest) []string {
	var texts []string
	for _, d := range digests {
		texts = append(texts, fmt.Sprintf("%x", d))
	}
	return texts
}
