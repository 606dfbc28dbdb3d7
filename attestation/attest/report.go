package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/corridor-enclave/corridor/attestation"
)

// A check is one line of the result.
type check struct {
	Check  string `json:"check"`
	Result string `json:"result"` // ok, FAIL, or warn, which fails nothing
	Detail string `json:"detail,omitempty"`
}

// A report is the result of attest verify; the names of its JSON form are kept.
type report struct {
	Verified bool    `json:"verified"`
	Exit     int     `json:"exit"`
	Verdict  string  `json:"verdict"`
	Reason   string  `json:"reason,omitempty"`
	URL      string  `json:"url"`
	Image    string  `json:"image,omitempty"`    // of the policy's entry
	AppHash  string  `json:"app_hash,omitempty"` // as the app has set it, if it has
	Config   string  `json:"config,omitempty"`   // digest of the configuration given at start
	Checks   []check `json:"checks"`
	Document *claims `json:"document,omitempty"` // present if genuine
}

// claims is the printable form of a document's content.
type claims struct {
	ModuleID  string         `json:"module_id"`
	Timestamp time.Time      `json:"timestamp"`
	Debug     bool           `json:"debug"`
	PCRs      map[int]string `json:"pcrs"`
	PublicKey string         `json:"public_key,omitempty"`
	UserData  string         `json:"user_data,omitempty"`
	Nonce     string         `json:"nonce,omitempty"`
}

func printable(c attestation.Claims) *claims {
	p := &claims{
		ModuleID: c.ModuleID, Timestamp: c.Timestamp, Debug: c.InDebugMode(), PCRs: make(map[int]string),
		PublicKey: hex.EncodeToString(c.PublicKey), UserData: hex.EncodeToString(c.UserData), Nonce: hex.EncodeToString(c.Nonce),
	}
	for i, value := range c.PCRs {
		p.PCRs[i] = hex.EncodeToString(value)
	}
	return p
}

func (r *report) add(name, result, detail string) {
	r.Checks = append(r.Checks, check{Check: name, Result: result, Detail: detail})
}

func (r *report) pass(name, format string, a ...any) { r.add(name, "ok", fmt.Sprintf(format, a...)) }

func (r *report) warn(name, format string, a ...any) { r.add(name, "warn", fmt.Sprintf(format, a...)) }

// note adds a check that has passed, for the reason given, or failed with err.
func (r *report) note(step attestation.Step, err error, format string, a ...any) {
	if err == nil {
		r.pass(string(step), format, a...)
		return
	}
	r.add(string(step), "FAIL", reason(err))
}

// reason returns why a check has failed, without the words that its line and the
// verdict say anyhow.
func reason(err error) string {
	var refused *attestation.Error
	if errors.As(err, &refused) {
		return refused.Reason
	}
	return err.Error()
}

// noteVerify adds the step at which verification ended, and those before it.
func (r *report) noteVerify(err error) {
	var refused *attestation.Error
	if !errors.As(err, &refused) {
		r.note(attestation.StepDocument, err, "")
		return
	}
	for _, step := range []attestation.Step{attestation.StepDocument, attestation.StepChain, attestation.StepSignature, attestation.StepValidity} {
		if step == refused.Step {
			r.note(step, err, "")
			return
		}
		r.pass(string(step), "")
	}
}

// noteGenuine adds the steps of a verification that has passed.
func (r *report) noteGenuine(d *attestation.Document, size int) {
	root := d.Chain[len(d.Chain)-1]
	ends := d.Chain[0].NotAfter
	for _, cert := range d.Chain {
		if cert.NotAfter.Before(ends) {
			ends = cert.NotAfter
		}
	}
	r.pass(string(attestation.StepDocument), "%d bytes of module %s", size, d.ModuleID)
	r.pass(string(attestation.StepChain), "%d certificates below the trusted root %q", len(d.Chain)-1, root.Subject)
	r.pass(string(attestation.StepSignature), "ES384, by the key of the leaf certificate")
	r.pass(string(attestation.StepValidity), "all certificates, until %s", ends.UTC().Format(time.RFC3339))
	r.Document = printable(d.Claims)
}

// noteEndpoint adds what the document says beside its keys.
func (r *report) noteEndpoint(e attestation.Endpoint) {
	if e.App != (attestation.Digest{}) {
		r.AppHash = hex.EncodeToString(e.App[:])
	}
	if e.Config != (attestation.Digest{}) {
		r.Config = hex.EncodeToString(e.Config[:])
	}
}

// conclude sets the verdict.
func (r *report) conclude(err error) {
	r.Exit = exitCode(err)
	r.Verified = r.Exit == exitVerified
	r.Verdict = [...]string{
		exitVerified: "verified", exitNotDone: "could not be done", exitNotGenuine: "not genuine",
		exitNotExpected: "not expected", exitNotFresh: "not fresh", exitNotThisConnection: "not this connection",
	}[r.Exit]
	if err == nil {
		return
	}
	r.Reason = reason(err)
	var refused *attestation.Error
	if errors.As(err, &refused) {
		r.Reason = string(refused.Step) + ": " + r.Reason
	}
}

// print writes the report and returns its exit code.
func (c command) print(r *report, asJSON bool) int {
	write := r.writeText
	if asJSON {
		write = func(w io.Writer) error { return writeJSON(w, r) }
	}
	if err := write(c.stdout); err != nil {
		fmt.Fprintf(c.stderr, "attest: write the result: %v\n", err)
		return exitNotDone
	}
	return r.Exit
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func (r *report) writeText(w io.Writer) error {
	var b strings.Builder
	for _, c := range r.Checks {
		fmt.Fprintf(&b, "%-4s  %-11s  %s\n", c.Result, c.Check, c.Detail)
	}
	if r.AppHash != "" {
		line(&b, "app hash", r.AppHash)
	}
	if r.Config != "" {
		line(&b, "config", r.Config)
	}
	if r.Document != nil {
		r.Document.writePCRs(&b)
	}
	verdict := r.Verdict
	if !r.Verified {
		verdict = "NOT VERIFIED: " + verdict + ": " + r.Reason
	}
	b.WriteString(verdict + "\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// line writes something to know, in the columns of the checks.
func line(w io.Writer, name, value string) { fmt.Fprintf(w, "      %-11s  %s\n", name, value) }

// writePCRs leaves out the registers that nobody has set: zero, and no image's.
func (c *claims) writePCRs(w io.Writer) {
	for _, i := range slices.Sorted(maps.Keys(c.PCRs)) {
		if i > 2 && strings.Trim(c.PCRs[i], "0") == "" {
			continue
		}
		line(w, fmt.Sprintf("PCR%d", i), c.PCRs[i])
	}
}
