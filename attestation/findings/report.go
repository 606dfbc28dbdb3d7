package findings

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

// The results of a check. A warning fails nothing.
const (
	OK   = "ok"
	Fail = "FAIL"
	Warn = "warn"
)

// A Check is one line of a report.
type Check struct {
	Check  string `json:"check"`
	Result string `json:"result"` // OK, Fail or Warn
	Detail string `json:"detail,omitempty"`
}

// A Report is the result of an examination; the names of its JSON form are kept.
type Report struct {
	Verified     bool     `json:"verified"`
	Exit         int      `json:"exit"`
	Verdict      string   `json:"verdict"`
	Reason       string   `json:"reason,omitempty"`
	URL          string   `json:"url"`
	Image        string   `json:"image,omitempty"`        // of the policy's entry
	AppHash      string   `json:"app_hash,omitempty"`     // as the app has set it, if it has
	Config       string   `json:"config,omitempty"`       // digest of the configuration given at start
	Keys         []string `json:"keys,omitempty"`         // SHA-256 of each SubjectPublicKeyInfo that the document names
	Certificates []string `json:"certificates,omitempty"` // SHA-256 of each certificate that it names
	Checks       []Check  `json:"checks"`
	Document     *Claims  `json:"document,omitempty"` // present if genuine
}

// Claims is the printable form of a document's content.
type Claims struct {
	ModuleID  string         `json:"module_id"`
	Timestamp time.Time      `json:"timestamp"`
	Debug     bool           `json:"debug"`
	PCRs      map[int]string `json:"pcrs"`
	PublicKey string         `json:"public_key,omitempty"`
	UserData  string         `json:"user_data,omitempty"`
	Nonce     string         `json:"nonce,omitempty"`
}

// Printable returns the printable form of claims.
func Printable(c attestation.Claims) *Claims {
	p := &Claims{
		ModuleID: c.ModuleID, Timestamp: c.Timestamp, Debug: c.InDebugMode(), PCRs: make(map[int]string),
		PublicKey: hex.EncodeToString(c.PublicKey), UserData: hex.EncodeToString(c.UserData), Nonce: hex.EncodeToString(c.Nonce),
	}
	for i, value := range c.PCRs {
		p.PCRs[i] = hex.EncodeToString(value)
	}
	return p
}

func (r *Report) add(name, result, detail string) {
	r.Checks = append(r.Checks, Check{Check: name, Result: result, Detail: detail})
}

// Pass notes a check that has passed, and what it has seen.
func (r *Report) Pass(name, format string, a ...any) { r.add(name, OK, fmt.Sprintf(format, a...)) }

// Warn notes what somebody should know and what fails nothing.
func (r *Report) Warn(name, format string, a ...any) { r.add(name, Warn, fmt.Sprintf(format, a...)) }

// Note adds a check that has passed, for the reason given, or failed with err.
func (r *Report) Note(step attestation.Step, err error, format string, a ...any) {
	if err == nil {
		r.Pass(string(step), format, a...)
		return
	}
	r.add(string(step), Fail, reason(err))
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

// Conclude sets the verdict. A nil error means that everything was checked and has
// passed.
func (r *Report) Conclude(err error) {
	r.Exit = Code(err)
	r.Verified = r.Exit == Verified
	r.Verdict = [...]string{
		Verified: "verified", NotDone: "could not be done", NotGenuine: "not genuine",
		NotExpected: "not expected", NotFresh: "not fresh", NotThisConnection: "not this connection",
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

// WriteJSON writes a value as attest prints it.
func WriteJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// WriteText writes a report for people, one line for each check.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	for _, c := range r.Checks {
		fmt.Fprintf(&b, "%-4s  %-11s  %s\n", c.Result, c.Check, c.Detail)
	}
	if r.AppHash != "" {
		WriteLine(&b, "app hash", r.AppHash)
	}
	if r.Config != "" {
		WriteLine(&b, "config", r.Config)
	}
	if r.Document != nil {
		r.Document.WritePCRs(&b)
	}
	verdict := r.Verdict
	if !r.Verified {
		verdict = "NOT VERIFIED: " + verdict + ": " + r.Reason
	}
	b.WriteString(verdict + "\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// WriteLine writes something to know, in the columns of the checks. Errors are the
// writer's to remember.
func WriteLine(w io.Writer, name, value string) { fmt.Fprintf(w, "      %-11s  %s\n", name, value) }

// WritePCRs leaves out the registers that nobody has set: zero, and no image's.
func (c *Claims) WritePCRs(w io.Writer) {
	for _, i := range slices.Sorted(maps.Keys(c.PCRs)) {
		if i > 2 && strings.Trim(c.PCRs[i], "0") == "" {
			continue
		}
		WriteLine(w, fmt.Sprintf("PCR%d", i), c.PCRs[i])
	}
}
