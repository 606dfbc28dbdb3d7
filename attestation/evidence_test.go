package attestation_test

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/corridor-enclave/corridor/attestation"
)

func TestParseEvidenceRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, in, want string }{
		{"nothing", "", "EOF"},
		{"no JSON", "hEShATgioFkR", "invalid"},
		{"an array", "[]", "array"},
		{"no version", `{"document":"AA=="}`, "version 0"},
		{"version 2", `{"version":2,"document":"AA=="}`, "version 2"},
		{"unknown key", `{"version":1,"document":"AA==","trust":"me"}`, "unknown field"},
		{"document not base64", `{"version":1,"document":"!"}`, "document"},
		{"document with loose bits", `{"version":1,"document":"AB=="}`, "document"},
		{"two objects", `{"version":1,"document":"AA=="}{}`, "follows"},
		{"index negative", `{"version":1,"document":"AA==","proof":{"index":-1}}`, "index"},
		{"index too large", `{"version":1,"document":"AA==","proof":{"index":4294967296}}`, "index"},
		{"path too long", `{"version":1,"document":"AA==","proof":{"path":[` + strings.Repeat(`"",`, 16) + `""]}}`, "path of 17 steps"},
		{"step no digest", `{"version":1,"document":"AA==","proof":{"path":["AA=="]}}`, "step 0"},
		{"exporter no exporter", `{"version":1,"document":"AA==","proof":{"exporter":"AA=="}}`, "exporter"},
		{"too long", strings.Repeat(" ", attestation.MaxEvidence+1), "longer than"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e, err := attestation.ParseEvidence([]byte(tt.in))
			if !errors.Is(err, attestation.ErrNotGenuine) || !strings.Contains(err.Error(), tt.want) || e.Document != nil || e.Proof != nil {
				t.Fatalf("ParseEvidence = %v, %v; want %q", e, err, tt.want)
			}
		})
	}
}

func TestEvidence(t *testing.T) {
	t.Parallel()
	const encoded = `{"version":1,"document":"AQI=","proof":{"index":2,"size":3,"path":["BwAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="],"exporter":"CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk="}}` + "\n"
	want := attestation.Evidence{Document: []byte{1, 2}, Proof: &attestation.Proof{
		Index: 2, Size: 3, Path: []attestation.Digest{{7}}, Exporter: bytes.Repeat([]byte{9}, 32),
	}}
	b := want.Encode()
	if string(b) != encoded {
		t.Fatalf("Encode = %s; want %s", b, encoded)
	}
	if got, err := attestation.ParseEvidence(b); err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("ParseEvidence = %v, %v; want %v", got, err, want)
	}
}

// The largest evidence there can be is taken.
func TestLargestEvidence(t *testing.T) {
	t.Parallel()
	e := attestation.Evidence{Document: make([]byte, attestation.MaxDocument), Proof: &attestation.Proof{
		Index: attestation.MaxTree - 1, Size: attestation.MaxTree, Path: make([]attestation.Digest, 16), Exporter: make([]byte, 32),
	}}
	if _, err := attestation.ParseEvidence(e.Encode()); err != nil {
		t.Fatal(err)
	}
}

// FuzzParseEvidence holds that what is taken survives a round trip.
func FuzzParseEvidence(f *testing.F) {
	f.Add([]byte(`{"version":1,"document":"AQI="}`))
	f.Add([]byte(`{"version":1,"document":"AQI=","proof":{"index":2,"size":3,"path":["BwAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="],"exporter":"CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk="}}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		e, err := attestation.ParseEvidence(in)
		if err != nil {
			return
		}
		b := e.Encode()
		if again, err := attestation.ParseEvidence(b); err != nil || !reflect.DeepEqual(again, e) {
			t.Fatalf("round trip: %v -> %s -> %v, %v", e, b, again, err)
		}
	})
}
