// Package browser examines evidence for a web page: what the page has fetched and
// what its reader expects go in as JSON, findings come out as JSON. Command wasm
// below it makes that callable from JavaScript. It fetches nothing, and cannot see
// certificates: no page can.
package browser

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/corridor-enclave/corridor/attestation"
	"github.com/corridor-enclave/corridor/attestation/findings"
	"github.com/corridor-enclave/corridor/attestation/policyfile"
)

// maxText bounds what a page may hand over, in bytes.
const maxText = 1 << 20

// A Request is what a page knows.
type Request struct {
	Evidence string `json:"evidence"` // the enclave's answer, as it came
	Nonce    string `json:"nonce"`    // that the page has sent, in hexadecimal
	Expected string `json:"expected"` // as Expect reads it; may be empty
	Root     string `json:"root"`     // PEM; empty: AWS's
}

// An Answer is what the page shows.
type Answer struct {
	Mistake string           `json:"mistake,omitempty"` // of the page's reader; then there is nothing else
	Report  *findings.Report `json:"report,omitempty"`
}

// Examine takes a Request as JSON and returns an Answer as JSON.
func Examine(request []byte, now func() time.Time) []byte {
	report, err := examine(request, now)
	answer := Answer{Report: report}
	if err != nil {
		answer = Answer{Mistake: err.Error()}
	}
	b, err := json.Marshal(answer)
	if err != nil {
		return []byte(`{"mistake":"the findings cannot be encoded"}`)
	}
	return b
}

func examine(request []byte, now func() time.Time) (*findings.Report, error) {
	var q Request
	if err := json.Unmarshal(request, &q); err != nil {
		return nil, fmt.Errorf("the page: %w", err)
	}
	nonce, err := hex.DecodeString(q.Nonce)
	if err != nil {
		return nil, fmt.Errorf("the page's nonce: %w", err)
	}
	roots, err := rootsOf(q.Root)
	if err != nil {
		return nil, fmt.Errorf("root: %w", err)
	}
	accept, err := Expect(q.Expected)
	if err != nil {
		return nil, fmt.Errorf("expected image: %w", err)
	}
	var policy *attestation.Policy
	if len(accept) > 0 {
		if policy, err = attestation.NewPolicy(accept, false); err != nil {
			return nil, fmt.Errorf("expected image: %w", err)
		}
	}
	r := &findings.Report{Checks: []findings.Check{}}
	evidence, err := attestation.ParseEvidence([]byte(q.Evidence))
	if err != nil {
		r.Note(attestation.StepDocument, err, "")
	} else {
		fresh := attestation.Freshness{Nonce: nonce, Proof: evidence.Proof}
		err = r.Examine(evidence, findings.Question{Roots: roots, Policy: policy, Fresh: fresh, Now: now})
	}
	r.Conclude(err)
	return r, nil
}

func rootsOf(text string) ([]*x509.Certificate, error) {
	if strings.TrimSpace(text) != "" {
		return attestation.ParseRoots([]byte(text))
	}
	root, err := attestation.AWSRoot()
	return []*x509.Certificate{root}, err
}

// Expect reads what people have at hand of an image that they expect: a policy in
// TOML; what building an image prints, JSON with PCRs in "Measurements"; or lines
// such as "PCR0 = HEX" or "0=HEX". Nothing at all expects nothing.
func Expect(text string) ([]attestation.Accept, error) {
	text = strings.TrimSpace(text)
	switch {
	case text == "":
		return nil, nil
	case len(text) > maxText:
		return nil, fmt.Errorf("%d bytes, the limit is %d", len(text), maxText)
	case strings.HasPrefix(text, "{"):
		return expectMeasurements(text)
	case strings.Contains(text, "[["):
		return policyfile.Parse([]byte(text))
	}
	var errs []error
	pcrs := make(map[int][]byte)
	for line := range strings.SplitSeq(text, "\n") {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			name, value, ok = strings.Cut(line, ":")
		}
		if !ok {
			errs = append(errs, fmt.Errorf("%.40q is not of the form PCR0 = HEX", line))
			continue
		}
		errs = append(errs, addPCR(pcrs, name, value))
	}
	return []attestation.Accept{{Name: "as pasted", PCRs: pcrs}}, errors.Join(errs...)
}

func expectMeasurements(text string) ([]attestation.Accept, error) {
	var printed struct{ Measurements map[string]string }
	if err := json.Unmarshal([]byte(text), &printed); err != nil {
		return nil, err
	}
	var errs []error
	pcrs := make(map[int][]byte)
	for name, value := range printed.Measurements {
		if name != "HashAlgorithm" {
			errs = append(errs, addPCR(pcrs, name, value))
		}
	}
	return []attestation.Accept{{Name: "as pasted", PCRs: pcrs}}, errors.Join(errs...)
}

func addPCR(pcrs map[int][]byte, name, value string) error {
	name = strings.TrimPrefix(strings.ToUpper(strings.Trim(name, " \t\"")), "PCR")
	index, register, err := policyfile.ParsePCR(strings.TrimSpace(name), strings.Trim(value, " \t\","))
	if err != nil {
		return err
	}
	if _, twice := pcrs[index]; twice {
		return fmt.Errorf("PCR%d is given twice", index)
	}
	pcrs[index] = register
	return nil
}
