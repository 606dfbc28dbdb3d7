package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/corridor-enclave/corridor/attestation"
	"github.com/corridor-enclave/corridor/attestation/client"
)

// nonceSize is what nitriding asks for: 40 hex digits.
const nonceSize = 20

func (c command) verify(ctx context.Context, args []string) int {
	o, mistakes := parseOptions(args)
	if len(mistakes) > 0 {
		return c.misused(mistakes...)
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()

	nonce := make([]byte, nonceSize)
	rand.Read(nonce) // never fails: it ends the program rather than return
	r := &report{URL: o.target.String(), Checks: []check{}}
	for i, a := range o.accept {
		if !pinsImage(a) {
			r.warn("policy", "entry %d lists none of PCR0, PCR1, PCR2 and PCR8: any image can match it", i+1)
		}
	}
	f, err := client.Fetch(ctx, nil, o.target, nonce)
	if err != nil {
		fmt.Fprintf(c.stderr, "attest: could not be done: %v\n", err)
		r.conclude(err)
		return c.print(r, o.json)
	}
	r.conclude(c.check(r, o, f, nonce))
	return c.print(r, o.json)
}

// pinsImage says whether an entry lists a register that the image determines.
func pinsImage(a attestation.Accept) bool {
	for _, i := range []int{0, 1, 2, 8} {
		if _, ok := a.PCRs[i]; ok {
			return true
		}
	}
	return false
}

// check runs all checks that can be run, notes each, and returns the gravest of
// the errors: the one with the lowest exit code.
func (c command) check(r *report, o options, f *client.Answer, nonce []byte) error {
	r.pass("connection", "%s, certificate with SHA-256 %x", f.Version, sha256.Sum256(f.Leaf.Raw))
	e, err := f.Evidence()
	if err != nil {
		r.note(attestation.StepDocument, err, "")
		return err
	}
	verifier := attestation.Verifier{Roots: o.roots, Now: c.now}
	d, err := verifier.Verify(e.Document)
	if err != nil {
		r.noteVerify(err)
		return err
	}
	r.noteGenuine(d, len(e.Document))

	fresh := f.Freshness(e, nonce, o.maxAge)
	now := c.now()
	nonceErr := fresh.CheckNonce(d)
	switch shared := e.Proof; {
	case errors.Is(nonceErr, attestation.ErrNotThisConnection):
		r.note(attestation.StepBinding, nonceErr, "")
	case shared != nil:
		r.note(attestation.StepNonce, nonceErr, "%d random bytes, the ones sent: leaf %d of %d in the document's tree", len(nonce), shared.Index, shared.Size)
	default:
		r.note(attestation.StepNonce, nonceErr, "%d random bytes, the ones sent", len(nonce))
	}
	timeErr := fresh.CheckTime(d, now)
	r.note(attestation.StepTime, timeErr, "made at %s, %v ago", d.Timestamp.Format(time.RFC3339), now.Sub(d.Timestamp).Round(time.Millisecond))
	image, policyErr := o.policy.Check(d, now)
	r.Image = image
	r.note(attestation.StepPCRs, policyErr, "as listed for image %q", image)
	if policyErr == nil && d.InDebugMode() {
		r.warn("debug mode", "the parent can read this enclave's console")
	}
	endpoint, bindingErr := attestation.EndpointOf(d)
	if bindingErr == nil {
		bindingErr = endpoint.Check(f.Leaf)
	}
	r.note(attestation.StepBinding, bindingErr, "%s", boundTo(endpoint, fresh))
	r.noteEndpoint(endpoint)
	return gravest(nonceErr, timeErr, policyErr, bindingErr)
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
		if err != nil && (worst == nil || exitCode(err) < exitCode(worst)) {
			worst = err
		}
	}
	return worst
}

func exitCode(err error) int {
	switch {
	case err == nil:
		return exitVerified
	case errors.Is(err, attestation.ErrNotGenuine):
		return exitNotGenuine
	case errors.Is(err, attestation.ErrNotExpected):
		return exitNotExpected
	case errors.Is(err, attestation.ErrNotFresh):
		return exitNotFresh
	case errors.Is(err, attestation.ErrNotThisConnection):
		return exitNotThisConnection
	}
	return exitNotDone
}
