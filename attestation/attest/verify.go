package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/corridor-enclave/corridor/attestation"
	"github.com/corridor-enclave/corridor/attestation/client"
	"github.com/corridor-enclave/corridor/attestation/findings"
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
	r := &findings.Report{URL: o.target.String(), Checks: []findings.Check{}}
	for i, a := range o.accept {
		if !pinsImage(a) {
			r.Warn("policy", "entry %d lists none of PCR0, PCR1, PCR2 and PCR8: any image can match it", i+1)
		}
	}
	f, err := client.Fetch(ctx, nil, o.target, nonce)
	if err != nil {
		fmt.Fprintf(c.stderr, "attest: could not be done: %v\n", err)
		r.Conclude(err)
		return c.print(r, o.json)
	}
	r.Conclude(c.check(r, o, f, nonce))
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

// check says what is known of the connection, and has the evidence examined.
func (c command) check(r *findings.Report, o options, f *client.Answer, nonce []byte) error {
	r.Pass("connection", "%s, certificate with SHA-256 %x", f.Version, sha256.Sum256(f.Leaf.Raw))
	e, err := f.Evidence()
	if err != nil {
		r.Note(attestation.StepDocument, err, "")
		return err
	}
	return r.Examine(e, findings.Question{
		Roots: o.roots, Policy: o.policy, Fresh: f.Freshness(e, nonce, o.maxAge), Leaf: f.Leaf, Now: c.now,
	})
}

// print writes the report and returns its exit code.
func (c command) print(r *findings.Report, asJSON bool) int {
	write := r.WriteText
	if asJSON {
		write = func(w io.Writer) error { return findings.WriteJSON(w, r) }
	}
	if err := write(c.stdout); err != nil {
		fmt.Fprintf(c.stderr, "attest: write the result: %v\n", err)
		return exitNotDone
	}
	return r.Exit
}
