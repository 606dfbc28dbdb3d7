// Package policyfile reads the images that a policy accepts from a TOML file. It
// is apart from package attestation so that the enclave does not link a TOML
// parser for it; what a policy means is said there.
//
//	[[accept]]
//	name = "release 1.4"                  # optional, for people
//	not_before = 2026-01-01T00:00:00Z     # optional, with a time zone
//	not_after = "2026-07-01T00:00:00Z"    # optional, a string is as good
//	max_age = "90s"                       # optional: of the document
//	modules = ["i-0a22e5c5f24d22174"]     # optional: instances, or whole module identifiers
//	signer = """-----BEGIN CERTIFICATE…"""# optional: who has signed the image; sets PCR8
//	app = "…"                             # optional: 64 hex digits that the app has set
//	config = "…"                          # optional: SHA-256 of what GET /enclave/config answers
//	[accept.pcrs]                         # at least one; 96 hex digits each
//	0 = "…"
//	1 = "…"
//	2 = "…"
package policyfile

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/corridor-enclave/corridor/attestation"
)

// MaxSize is the largest file in bytes: about 300 images.
const MaxSize = 1 << 20

type rawFile struct {
	Accept []rawAccept `toml:"accept"`
}

// The times are of no fixed type, because the parser would read a time without
// zone as local time, and a policy must mean the same everywhere.
type rawAccept struct {
	Name      string            `toml:"name"`
	NotBefore any               `toml:"not_before"`
	NotAfter  any               `toml:"not_after"`
	MaxAge    string            `toml:"max_age"`
	Modules   []string          `toml:"modules"`
	Signer    string            `toml:"signer"`
	App       string            `toml:"app"`
	Config    string            `toml:"config"`
	PCRs      map[string]string `toml:"pcrs"`
}

// Parse reads a file. All mistakes are reported at once, each named by the place
// of its entry, counted from 1; unknown keys are mistakes. What the entries mean
// together, attestation.NewPolicy checks.
func Parse(file []byte) ([]attestation.Accept, error) {
	if len(file) > MaxSize {
		return nil, fmt.Errorf("policyfile: %d bytes, the limit is %d", len(file), MaxSize)
	}
	var raw rawFile
	if err := toml.NewDecoder(bytes.NewReader(file)).DisallowUnknownFields().Decode(&raw); err != nil {
		return nil, fmt.Errorf("policyfile: %s", describe(err))
	}
	if len(raw.Accept) == 0 {
		return nil, errors.New("policyfile: there is no [[accept]] entry, so nothing would be accepted")
	}
	var errs []error
	accept := make([]attestation.Accept, 0, len(raw.Accept))
	for i, r := range raw.Accept {
		a, err := r.validate()
		if err != nil {
			errs = append(errs, fmt.Errorf("accept %d: %w", i+1, err))
		}
		accept = append(accept, a)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("policyfile: %w", err)
	}
	return accept, nil
}

// describe says where in the file a mistake is.
func describe(err error) string {
	var unknown *toml.StrictMissingError
	if errors.As(err, &unknown) {
		var errs []error
		for _, e := range unknown.Errors {
			row, _ := e.Position()
			errs = append(errs, fmt.Errorf("line %d: unknown key %v", row, e.Key()))
		}
		return errors.Join(errs...).Error()
	}
	var syntax *toml.DecodeError
	if errors.As(err, &syntax) {
		row, column := syntax.Position()
		return fmt.Sprintf("line %d, column %d: %v", row, column, syntax)
	}
	return err.Error()
}

func (r rawAccept) validate() (attestation.Accept, error) {
	var errs []error
	a := attestation.Accept{Name: r.Name, PCRs: make(map[int][]byte), Modules: r.Modules}
	bad := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	var err error
	a.NotBefore, err = parseTime("not_before", r.NotBefore)
	bad(err)
	a.NotAfter, err = parseTime("not_after", r.NotAfter)
	bad(err)
	a.MaxAge, err = parseAge(r.MaxAge)
	bad(err)
	a.App, err = parseDigest("app", r.App)
	bad(err)
	a.Config, err = parseDigest("config", r.Config)
	bad(err)
	for _, key := range slices.Sorted(maps.Keys(r.PCRs)) {
		index, value, err := ParsePCR(key, r.PCRs[key])
		if err != nil {
			errs = append(errs, fmt.Errorf("pcrs: %w", err))
			continue
		}
		a.PCRs[index] = value
	}
	bad(addSigner(a.PCRs, r.Signer))
	return a, errors.Join(errs...)
}

func parseAge(value string) (time.Duration, error) {
	if value == "" {
		return 0, nil
	}
	age, err := time.ParseDuration(value)
	if err != nil || age <= 0 {
		return 0, fmt.Errorf("max_age: %q is not a duration above zero, such as 90s", value)
	}
	return age, nil
}

func parseDigest(key, value string) (d attestation.Digest, err error) {
	if value == "" {
		return d, nil
	}
	b, err := hex.DecodeString(value)
	if err != nil || copy(d[:], b) != len(b) || len(b) != len(d) || d == (attestation.Digest{}) {
		return attestation.Digest{}, fmt.Errorf("%s: %q is not %d hex digits other than zeros", key, value, 2*len(d))
	}
	return d, nil
}

// addSigner demands the register that measures the certificate by which an image
// is signed.
func addSigner(pcrs map[int][]byte, value string) error {
	const register = 8
	if value == "" {
		return nil
	}
	block, rest := pem.Decode([]byte(value))
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return errors.New("signer: not one certificate in PEM")
	}
	if _, err := x509.ParseCertificate(block.Bytes); err != nil {
		return fmt.Errorf("signer: %w", err)
	}
	if _, twice := pcrs[register]; twice {
		return fmt.Errorf("signer: PCR%d is listed too, and it is the same", register)
	}
	pcrs[register] = attestation.Measure(block.Bytes)
	return nil
}

func parseTime(key string, value any) (time.Time, error) {
	switch v := value.(type) {
	case nil:
		return time.Time{}, nil
	case time.Time:
		return v, nil
	case string:
		t, err := time.Parse(time.RFC3339, v)
		if err != nil {
			return time.Time{}, fmt.Errorf("%s: %q is not a time of RFC 3339", key, v)
		}
		return t, nil
	}
	return time.Time{}, fmt.Errorf("%s: %v has no time zone: write it like 2026-01-31T12:00:00Z", key, value)
}

// ParsePCR reads one register: a decimal index without leading zero, so that a
// register has one name, and its value in hexadecimal. Errors name both as typed.
func ParsePCR(index, value string) (int, []byte, error) {
	i, err := strconv.Atoi(index)
	if err != nil || strconv.Itoa(i) != index || i < 0 || i >= attestation.MaxPCRs {
		return 0, nil, fmt.Errorf("%q is not a PCR: there are 0 to %d", index, attestation.MaxPCRs-1)
	}
	b, err := hex.DecodeString(value)
	if err != nil {
		return 0, nil, fmt.Errorf("PCR%d: %q is not hexadecimal", i, value)
	}
	if len(b) != attestation.PCRSize {
		return 0, nil, fmt.Errorf("PCR%d: %d hex digits instead of %d", i, len(value), 2*attestation.PCRSize)
	}
	return i, b, nil
}
