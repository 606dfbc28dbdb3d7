package policyfile_test

import (
	"bytes"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/attestation"
	"github.com/corridor-enclave/corridor/attestation/attestationtest"
	"github.com/corridor-enclave/corridor/attestation/policyfile"
)

func hex96(digit string) string { return strings.Repeat(digit, 96) }

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	signer, _ := newSigner(t)
	pcrs := "\n[accept.pcrs]\n0 = \"" + hex96("1") + "\"\n"
	tests := []struct {
		name, in string
		want     []string // all of them are reported
	}{
		{name: "nothing", in: "", want: []string{"no [[accept]] entry"}},
		{name: "not TOML", in: "[[accept", want: []string{"line 1"}},
		{name: "not a list", in: "accept = 1", want: []string{"policyfile"}},
		{name: "unknown keys", in: "[[accept]]\nnme = \"x\"\nwhen = 1" + pcrs, want: []string{"line 2: unknown key [accept nme]", "line 3: unknown key [accept when]"}},
		{name: "key twice", in: "[[accept]]\nname = \"x\"\nname = \"y\"" + pcrs, want: []string{"line 3"}},
		{name: "too long", in: strings.Repeat("#", policyfile.MaxSize+1), want: []string{"the limit is"}},
		{
			name: "PCRs that are none",
			in:   "[[accept]]\n[accept.pcrs]\n32 = \"\"\n00 = \"\"\n-1 = \"\"\nzero = \"\"\n1 = \"xyz\"\n2 = \"00\"\n",
			want: []string{`"32" is not a PCR`, `"00" is not a PCR`, `"-1" is not a PCR`, `"zero" is not a PCR`, "PCR1: \"xyz\" is not hexadecimal", "PCR2: 2 hex digits instead of 96"},
		},
		{
			name: "everything else",
			in:   "[[accept]]\nmax_age = \"0s\"\napp = \"00\"\nconfig = \"" + strings.Repeat("0", 64) + "\"\nsigner = \"me\"" + pcrs,
			want: []string{`max_age: "0s" is not`, `app: "00" is not 64 hex`, "config: ", "signer: not one certificate"},
		},
		{name: "signer no certificate", in: "[[accept]]\nsigner = \"\"\"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\"\"\"" + pcrs, want: []string{"signer: x509"}},
		{name: "signer and PCR8", in: "[[accept]]\nsigner = \"\"\"" + signer + "\"\"\"" + pcrs + "8 = \"" + hex96("1") + "\"\n", want: []string{"PCR8 is listed too"}},
		{
			name: "times without zone",
			in:   "[[accept]]\nnot_before = 2026-01-01T00:00:00\nnot_after = 2026-01-01" + pcrs + "[[accept]]\nnot_before = \"yesterday\"\nnot_after = 1" + pcrs,
			want: []string{"accept 1: not_before: 2026-01-01T00:00:00 has no time zone", "not_after: 2026-01-01 has no time zone", "accept 2: not_before: \"yesterday\" is not a time", "not_after: 1 has no"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			accept, err := policyfile.Parse([]byte(tt.in))
			if accept != nil || err == nil {
				t.Fatalf("got %v, %v; want an error", accept, err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	file, err := os.ReadFile(filepath.Join("testdata", "two-images.toml"))
	if err != nil {
		t.Fatal(err)
	}
	accept, err := policyfile.Parse(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(accept) != 2 {
		t.Fatalf("%d entries, want 2", len(accept))
	}
	first, second := accept[0], accept[1]
	want := time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC)
	if first.Name != "release 1.4" || !first.NotAfter.Equal(want) || !first.NotBefore.IsZero() || len(first.PCRs) != 3 || first.PCRs[2][47] != 0x22 {
		t.Errorf("first entry is %+v", first)
	}
	if second.Name != "release 1.5" || !second.NotBefore.Equal(want) || !second.NotAfter.IsZero() || len(second.PCRs) != 1 {
		t.Errorf("second entry is %+v", second)
	}
}

func newSigner(t *testing.T) (text string, der []byte) {
	t.Helper()
	c, err := attestationtest.NewChain("signer", time.Now(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Leaf().Raw})), c.Leaf().Raw
}

func TestParseEverything(t *testing.T) {
	t.Parallel()
	signer, der := newSigner(t)
	accept, err := policyfile.Parse([]byte("[[accept]]\nmax_age = \"90s\"\nmodules = [\"i-1\"]\napp = \"" + strings.Repeat("ab", 32) +
		"\"\nconfig = \"" + strings.Repeat("cd", 32) + "\"\nsigner = \"\"\"" + signer + "\"\"\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	a := accept[0]
	if a.MaxAge != 90*time.Second || len(a.Modules) != 1 || a.App[31] != 0xab || a.Config[0] != 0xcd || !bytes.Equal(a.PCRs[8], attestation.Measure(der)) {
		t.Errorf("parsed as %+v", a)
	}
}

// FuzzParse holds that what is parsed has registers of the right shape, and is
// a policy or refused as one, without a panic.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob(filepath.Join("testdata", "*.toml"))
	if err != nil || len(files) == 0 {
		f.Fatalf("found no policies in testdata (%v)", err)
	}
	for _, name := range files {
		file, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(file)
	}
	f.Add([]byte("[[accept]]\nnot_before = 2026-01-01"))
	f.Fuzz(func(t *testing.T, file []byte) {
		accept, err := policyfile.Parse(file)
		if err != nil {
			return
		}
		for _, a := range accept {
			for i, value := range a.PCRs {
				if i < 0 || i >= attestation.MaxPCRs || len(value) != attestation.PCRSize {
					t.Fatalf("PCR%d of %d bytes", i, len(value))
				}
			}
		}
		p, err := attestation.NewPolicy(accept, false)
		if err != nil {
			return
		}
		if _, err := p.Check(&attestation.Document{}, time.Time{}); !errors.Is(err, attestation.ErrNotExpected) {
			t.Fatalf("a document without registers is accepted: %v", err)
		}
	})
}
