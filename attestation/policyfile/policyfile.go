// Package policyfile reads the images that a policy accepts from a TOML file. It
// is apart from package attestation so that the enclave does not link a TOML
// parser for it; what a policy means is said there.
//
//	[[accept]]
//	name = "release 1.4"                  # optional, for people
//	not_before = 2026-01-01T00:00:00Z     # optional, with a time zone
//	not_after = "2026-07-01T00:00:00Z"    # optional, a string is as good
//	[accept.pcrs]                         # at least one; 96 hex digits each
//	0 = "…"
//	1 = "…"
//	2 = "…"
package policyfile

import (
	"bytes"
	"encoding/hex"
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
	a := attestation.Accept{Name: r.Name, PCRs: make(map[int][]byte)}
	var err error
	if a.NotBefore, err = parseTime("not_before", r.NotBefore); err != nil {
		errs = append(errs, err)
	}
	if a.NotAfter, err = parseTime("not_after", r.NotAfter); err != nil {
		errs = append(errs, err)
	}
	for _, key := range slices.Sorted(maps.Keys(r.PCRs)) {
		index, value, err := ParsePCR(key, r.PCRs[key])
		if err != nil {
			errs = append(errs, fmt.Errorf("pcrs: %w", err))
			continue
		}
		a.PCRs[index] = value
	}
	return a, errors.Join(errs...)
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
