package attestation

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// An Accept describes one image that is expected.
type Accept struct {
	Name      string         // for people; may be empty
	NotBefore time.Time      // expected from then on; zero means always
	NotAfter  time.Time      // expected until then; zero means always
	PCRs      map[int][]byte // all have to be equal; one not listed is not checked
	// Modules are the modules that may have signed, each by its whole identifier
	// or by its instance's (i-...); none means any.
	Modules []string
	// MaxAge is how old the document may be; zero means that Freshness alone says.
	MaxAge time.Duration
	// App and Config have to stand in the document; zero means whatever does.
	App, Config Digest
}

// A Policy says whether a document is expected. It never sees signatures. Its
// zero value refuses everything. It is safe for concurrent use.
type Policy struct {
	accept     []Accept
	allowDebug bool
}

// The registers that measure the image; all are zero in debug mode, where the
// parent can read the enclave's console, and none is ever zero otherwise.
const firstImagePCR, lastImagePCR = 0, 2

// NewPolicy returns a policy that accepts any of the given images. Enclaves in
// debug mode are refused unless allowDebug is set, and even then their zeros
// have to be listed. All mistakes are reported at once; a policy that accepts
// nothing, or an image that lists no PCR and so would be any, is a mistake.
func NewPolicy(accept []Accept, allowDebug bool) (*Policy, error) {
	if len(accept) == 0 {
		return nil, errors.New("attestation: policy accepts nothing: give at least one image with its PCRs")
	}
	var errs []error
	p := &Policy{allowDebug: allowDebug}
	for i, a := range accept {
		if err := a.validate(allowDebug); err != nil {
			errs = append(errs, fmt.Errorf("accept %s: %w", a.label(i), err))
			continue
		}
		a.PCRs, a.Modules = clonePCRs(a.PCRs), slices.Clone(a.Modules)
		p.accept = append(p.accept, a)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("attestation: policy: %w", err)
	}
	return p, nil
}

func clonePCRs(pcrs map[int][]byte) map[int][]byte {
	c := make(map[int][]byte, len(pcrs))
	for i, value := range pcrs {
		c[i] = bytes.Clone(value)
	}
	return c
}

// label names an entry for people: by its place, counted from 1, and its name.
func (a Accept) label(i int) string {
	if a.Name == "" {
		return fmt.Sprintf("%d", i+1)
	}
	return fmt.Sprintf("%d (%q)", i+1, a.Name)
}

func (a Accept) validate(allowDebug bool) error {
	var errs []error
	if len(a.PCRs) == 0 {
		errs = append(errs, errors.New("lists no PCR"))
	}
	if !printable(a.Name) {
		errs = append(errs, errors.New("name is not printable ASCII"))
	}
	if !a.NotBefore.IsZero() && !a.NotAfter.IsZero() && a.NotAfter.Before(a.NotBefore) {
		errs = append(errs, errors.New("ends before it begins"))
	}
	if a.MaxAge < 0 {
		errs = append(errs, fmt.Errorf("maximum age of %v", a.MaxAge))
	}
	for _, m := range a.Modules {
		if m == "" || !printable(m) {
			errs = append(errs, fmt.Errorf("%q is no module", m))
		}
	}
	for _, i := range slices.Sorted(maps.Keys(a.PCRs)) {
		value := a.PCRs[i]
		switch {
		case i < 0 || i >= MaxPCRs:
			errs = append(errs, fmt.Errorf("PCR%d: there are 0 to %d", i, MaxPCRs-1))
		case len(value) != PCRSize:
			errs = append(errs, fmt.Errorf("PCR%d: %d bytes instead of %d", i, len(value), PCRSize))
		case !allowDebug && i >= firstImagePCR && i <= lastImagePCR && isZero(value):
			errs = append(errs, fmt.Errorf("PCR%d: zero means debug mode, which has to be allowed", i))
		}
	}
	return errors.Join(errs...)
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// InDebugMode says whether the parent can look into the enclave: a register that
// measures the image is zero, or missing.
func (c *Claims) InDebugMode() bool {
	for i := firstImagePCR; i <= lastImagePCR; i++ {
		if isZero(c.PCRs[i]) {
			return true
		}
	}
	return false
}

// Check returns the name of the first image that the document equals and that is
// expected at the time now. Its error matches ErrNotExpected and names, for
// every image of the policy, each register that differs.
func (p *Policy) Check(d *Document, now time.Time) (string, error) {
	if p == nil || len(p.accept) == 0 {
		return "", refuse(ErrNotExpected, StepPCRs, "the policy is empty")
	}
	if d.InDebugMode() && !p.allowDebug {
		return "", refuse(ErrNotExpected, StepPCRs, "debug mode: PCR0, PCR1 or PCR2 is zero")
	}
	reasons := make([]string, 0, len(p.accept))
	for i, a := range p.accept {
		differences := a.differences(d, now)
		if len(differences) == 0 {
			return a.Name, nil
		}
		reasons = append(reasons, a.label(i)+": "+strings.Join(differences, ", "))
	}
	return "", refuse(ErrNotExpected, StepPCRs, "%s", strings.Join(reasons, "; "))
}

func (a Accept) differences(d *Document, now time.Time) []string {
	var differences []string
	if !a.NotBefore.IsZero() && now.Before(a.NotBefore) {
		differences = append(differences, "expected only from "+rfc3339(a.NotBefore))
	}
	if !a.NotAfter.IsZero() && now.After(a.NotAfter) {
		differences = append(differences, "expected only until "+rfc3339(a.NotAfter))
	}
	for _, i := range slices.Sorted(maps.Keys(a.PCRs)) {
		value, ok := d.PCRs[i]
		if !ok {
			differences = append(differences, fmt.Sprintf("PCR%d is not in the document", i))
		} else if !bytes.Equal(value, a.PCRs[i]) {
			differences = append(differences, fmt.Sprintf("PCR%d differs", i))
		}
	}
	return append(differences, a.otherDifferences(d, now)...)
}

// otherDifferences are those outside the registers.
func (a Accept) otherDifferences(d *Document, now time.Time) []string {
	var differences []string
	if len(a.Modules) > 0 && !slices.ContainsFunc(a.Modules, d.isOf) {
		differences = append(differences, fmt.Sprintf("module %s is not listed", d.ModuleID))
	}
	if age := now.Sub(d.Timestamp); a.MaxAge > 0 && age > a.MaxAge {
		differences = append(differences, fmt.Sprintf("%v old, the limit is %v", age.Round(time.Second), a.MaxAge))
	}
	if a.App == (Digest{}) && a.Config == (Digest{}) {
		return differences
	}
	e, err := EndpointOf(d)
	if err != nil {
		return append(differences, "the document says nothing of app and configuration")
	}
	if a.App != (Digest{}) && a.App != e.App {
		differences = append(differences, "app hash differs")
	}
	if a.Config != (Digest{}) && a.Config != e.Config {
		differences = append(differences, "configuration differs")
	}
	return differences
}

// isOf says whether the module that signed is the named one or one of the named
// instance's: its identifier is i-INSTANCE-encENCLAVE.
func (c *Claims) isOf(module string) bool {
	return c.ModuleID == module || strings.HasPrefix(c.ModuleID, module+"-enc")
}
