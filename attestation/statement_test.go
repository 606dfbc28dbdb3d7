package attestation_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/corridor-enclave/corridor/attestation"
)

// vectors is the file that other implementations test themselves with.
type vectors struct {
	Statements []struct {
		Name         string
		Purpose      uint8
		Keys         []string
		Certificates []string
		App, Config  string
		TreeSize     uint32 `json:"tree_size"`
		TreeRoot     string `json:"tree_root"`
		Encoded      string
	}
	Refused []struct{ Name, Encoded, Why string }
	Trees   []struct {
		Name   string
		Nonces []struct{ Nonce, Exporter, Leaf string }
		Root   string
		Paths  [][]string
	}
}

func readVectors(t testing.TB) vectors {
	t.Helper()
	file, err := os.ReadFile("testdata/statements.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(file, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Statements) < 6 || len(v.Refused) < 20 || len(v.Trees) < 4 {
		t.Fatalf("%d statements, %d refused, %d trees: vectors are missing", len(v.Statements), len(v.Refused), len(v.Trees))
	}
	return v
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func digest(t testing.TB, s string) (d attestation.Digest) {
	t.Helper()
	if s != "" && copy(d[:], unhex(t, s)) != len(d) {
		t.Fatalf("%q is no digest", s)
	}
	return d
}

func digests(t testing.TB, list []string) []attestation.Digest {
	var ds []attestation.Digest
	for _, s := range list {
		ds = append(ds, digest(t, s))
	}
	return ds
}

func TestStatementVectors(t *testing.T) {
	t.Parallel()
	v := readVectors(t)
	for _, tt := range v.Refused {
		t.Run("refused/"+tt.Name, func(t *testing.T) {
			t.Parallel()
			s, err := attestation.ParseStatement(unhex(t, tt.Encoded))
			if err == nil || !strings.Contains(err.Error(), tt.Why) || !reflect.DeepEqual(s, attestation.Statement{}) {
				t.Fatalf("ParseStatement = %+v, %v; want an error with %q", s, err, tt.Why)
			}
		})
	}
	for _, tt := range v.Statements {
		t.Run(tt.Name, func(t *testing.T) {
			t.Parallel()
			want := attestation.Statement{
				Purpose: attestation.Purpose(tt.Purpose), Keys: digests(t, tt.Keys), Certificates: digests(t, tt.Certificates),
				App: digest(t, tt.App), Config: digest(t, tt.Config),
				Tree: attestation.TreeHead{Size: tt.TreeSize, Root: digest(t, tt.TreeRoot)},
			}
			encoded, err := want.Encode()
			if err != nil || hex.EncodeToString(encoded) != tt.Encoded {
				t.Errorf("Encode = %x, %v; want %s", encoded, err, tt.Encoded)
			}
			got, err := attestation.ParseStatement(unhex(t, tt.Encoded))
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("ParseStatement = %+v, %v; want %+v", got, err, want)
			}
		})
	}
}

// The order of the lists is the encoding's, not the caller's.
func TestStatementOrdersItsLists(t *testing.T) {
	t.Parallel()
	s := attestation.Statement{Purpose: attestation.PurposeClient, Keys: []attestation.Digest{{3}, {1}, {3}}}
	encoded, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := attestation.ParseStatement(encoded)
	if err != nil || !reflect.DeepEqual(got.Keys, []attestation.Digest{{1}, {3}}) || s.Keys[0] != (attestation.Digest{3}) {
		t.Fatalf("keys %x, %v; want 01 and 03, and the caller's list untouched", got.Keys, err)
	}
}

func TestLargestStatementFits(t *testing.T) {
	t.Parallel()
	s := attestation.Statement{
		Purpose: attestation.PurposeBatch, App: attestation.Digest{1}, Config: attestation.Digest{1},
		Tree: attestation.TreeHead{Size: attestation.MaxTree, Root: attestation.Digest{1}},
	}
	for i := range byte(attestation.MaxKeys) {
		s.Keys = append(s.Keys, attestation.Digest{i})
		s.Certificates = append(s.Certificates, attestation.Digest{i})
	}
	encoded, err := s.Encode()
	if err != nil || len(encoded) > attestation.MaxStatement {
		t.Fatalf("%d bytes, %v; the limit is %d", len(encoded), err, attestation.MaxStatement)
	}
	s.Keys = append(s.Keys, attestation.Digest{0xff})
	if encoded, err := s.Encode(); encoded != nil || err == nil {
		t.Fatal("a seventh key is encoded")
	}
}

func TestPurposesHaveNames(t *testing.T) {
	t.Parallel()
	for p, want := range map[attestation.Purpose]string{
		0: "purpose 0", attestation.PurposeClient: "client", attestation.PurposePeer: "peer", attestation.PurposeKMS: "kms",
		attestation.PurposeApp: "app", attestation.PurposeBatch: "batch", 6: "purpose 6",
	} {
		if got := p.String(); got != want {
			t.Errorf("purpose %d is called %q, want %q", uint8(p), got, want)
		}
	}
}

// FuzzParseStatement holds that what is taken has one encoding.
func FuzzParseStatement(f *testing.F) {
	v := readVectors(f)
	for _, s := range v.Statements {
		f.Add(unhex(f, s.Encoded))
	}
	for _, s := range v.Refused {
		f.Add(unhex(f, s.Encoded))
	}
	nitriding := attestation.NitridingUserData(nil, sha256.Sum256(nil))
	f.Add(nitriding)
	f.Fuzz(func(t *testing.T, in []byte) {
		s, err := attestation.ParseStatement(in)
		if err != nil {
			return
		}
		out, err := s.Encode()
		if err != nil || !bytes.Equal(out, in) {
			t.Fatalf("round trip: %x -> %+v -> %x, %v", in, s, out, err)
		}
		if _, _, err := attestation.ParseNitridingUserData(in); err == nil {
			t.Fatal("a statement that is also nitriding's layout")
		}
	})
}
