package attestation_test

import (
	"bytes"
	"crypto/sha512"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/attestation"
)

func pcr(b byte) []byte { return bytes.Repeat([]byte{b}, attestation.PCRSize) }

func TestNewPolicyRefuses(t *testing.T) {
	t.Parallel()
	good := map[int][]byte{0: pcr(1)}
	tests := []struct {
		name   string
		accept []attestation.Accept
		want   []string // all of them are reported
	}{
		{name: "nothing accepted", want: []string{"accepts nothing"}},
		{name: "no PCRs", accept: []attestation.Accept{{Name: "a", PCRs: good}, {Name: "b"}}, want: []string{`accept 2 ("b"): lists no PCR`}},
		{
			name:   "several mistakes",
			accept: []attestation.Accept{{PCRs: map[int][]byte{-1: pcr(1), 32: pcr(1), 4: pcr(1)[:32]}}, {Name: "\n", PCRs: good}},
			want:   []string{"PCR-1: there are", "PCR32: there are", "PCR4: 32 bytes instead of 48", `accept 2 ("\n"): name is not printable`},
		},
		{name: "debug mode by the back door", accept: []attestation.Accept{{PCRs: map[int][]byte{2: pcr(0)}}}, want: []string{"PCR2: zero means debug mode"}},
		{name: "negative age and odd modules", accept: []attestation.Accept{{PCRs: good, MaxAge: -1, Modules: []string{"", "i\x1b"}}}, want: []string{"maximum age of -1ns", `"" is no module`, `"i\x1b" is no module`}},
		{
			name:   "ends before it begins",
			accept: []attestation.Accept{{PCRs: good, NotBefore: now(), NotAfter: now().Add(-time.Second)}},
			want:   []string{"ends before it begins"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p, err := attestation.NewPolicy(tt.accept, false)
			if p != nil || err == nil {
				t.Fatalf("got a policy: %v, %v; want an error", p != nil, err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
}

func document(pcrs map[int][]byte) *attestation.Document {
	return &attestation.Document{Claims: attestation.Claims{PCRs: pcrs}}
}

func TestPolicyCheck(t *testing.T) {
	t.Parallel()
	production := map[int][]byte{0: pcr(1), 1: pcr(2), 2: pcr(3), 4: pcr(5)}
	debug := map[int][]byte{0: pcr(0), 1: pcr(0), 2: pcr(0), 4: pcr(5)}
	one := attestation.Accept{Name: "one", PCRs: map[int][]byte{0: pcr(1), 1: pcr(2), 2: pcr(3)}}
	wrong := attestation.Accept{Name: "wrong", PCRs: map[int][]byte{0: pcr(1), 1: pcr(9), 2: pcr(9)}}
	extra := attestation.Accept{PCRs: map[int][]byte{0: pcr(1), 8: pcr(0)}}
	onlyParent := attestation.Accept{Name: "parent", PCRs: map[int][]byte{4: pcr(5)}}
	zeros := attestation.Accept{Name: "zeros", PCRs: map[int][]byte{0: pcr(0), 1: pcr(0), 2: pcr(0)}}
	later, earlier := one, one
	later.NotBefore = now().Add(time.Second)
	earlier.NotAfter = now().Add(-time.Second)
	current := one
	current.NotBefore, current.NotAfter = now(), now()
	tests := []struct {
		name       string
		pcrs       map[int][]byte
		accept     []attestation.Accept
		allowDebug bool
		want       string // the name, or a part of the reason
		refused    bool
	}{
		{name: "other image", pcrs: production, accept: []attestation.Accept{wrong}, want: `1 ("wrong"): PCR1 differs, PCR2 differs`, refused: true},
		{name: "none of two", pcrs: production, accept: []attestation.Accept{wrong, extra}, want: "; 2: PCR8 is not in the document", refused: true},
		{name: "not yet", pcrs: production, accept: []attestation.Accept{later}, want: "expected only from", refused: true},
		{name: "no longer", pcrs: production, accept: []attestation.Accept{earlier}, want: "expected only until", refused: true},
		{name: "debug", pcrs: debug, accept: []attestation.Accept{onlyParent}, want: "debug mode", refused: true},
		{name: "one image register zero", pcrs: map[int][]byte{0: pcr(1), 1: pcr(2), 2: pcr(0), 4: pcr(5)}, accept: []attestation.Accept{onlyParent}, want: "debug mode", refused: true},
		{name: "image register missing", pcrs: map[int][]byte{0: pcr(1), 1: pcr(2), 4: pcr(5)}, accept: []attestation.Accept{onlyParent}, want: "debug mode", refused: true},
		{name: "debug allowed but not listed", pcrs: debug, accept: []attestation.Accept{one}, allowDebug: true, want: "PCR0 differs", refused: true},
		{name: "debug allowed and listed", pcrs: debug, accept: []attestation.Accept{zeros}, allowDebug: true, want: "zeros"},
		{name: "production where debug is allowed", pcrs: production, accept: []attestation.Accept{zeros, one}, allowDebug: true, want: "one"},
		{name: "expected", pcrs: production, accept: []attestation.Accept{one}, want: "one"},
		{name: "second of two", pcrs: production, accept: []attestation.Accept{wrong, one}, want: "one"},
		{name: "both ends of its time are in", pcrs: production, accept: []attestation.Accept{current}, want: "one"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p, err := attestation.NewPolicy(tt.accept, tt.allowDebug)
			if err != nil {
				t.Fatal(err)
			}
			name, err := p.Check(document(tt.pcrs), now())
			if !tt.refused {
				if name != tt.want || err != nil {
					t.Fatalf("got %q, %v; want %q", name, err, tt.want)
				}
				return
			}
			if name != "" || !errors.Is(err, attestation.ErrNotExpected) || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %q, %v; want %v: %s", name, err, attestation.ErrNotExpected, tt.want)
			}
		})
	}
}

func TestZeroPolicyRefuses(t *testing.T) {
	t.Parallel()
	for _, p := range []*attestation.Policy{nil, {}} {
		if _, err := p.Check(document(map[int][]byte{0: pcr(1), 1: pcr(1), 2: pcr(1)}), now()); !errors.Is(err, attestation.ErrNotExpected) {
			t.Fatalf("got %v, want %v", err, attestation.ErrNotExpected)
		}
	}
}

// A policy must not change with the maps it was made of.
func TestPolicyOwnsItsValues(t *testing.T) {
	t.Parallel()
	pcrs := map[int][]byte{0: pcr(1), 1: pcr(1), 2: pcr(1)}
	p, err := attestation.NewPolicy([]attestation.Accept{{Name: "one", PCRs: pcrs}}, false)
	if err != nil {
		t.Fatal(err)
	}
	pcrs[0][0] = 9
	delete(pcrs, 1)
	if _, err := p.Check(document(map[int][]byte{0: pcr(1), 1: pcr(1), 2: pcr(1)}), now()); err != nil {
		t.Fatal(err)
	}
}

// FuzzPolicy holds that what a policy accepts equals every register it lists and
// is not in debug mode, compared here by a slower hand.
func FuzzPolicy(f *testing.F) {
	f.Add([]byte{0, 1, 1, 1, 2, 1}, []byte{0, 1, 1, 1, 2, 1}, false)
	f.Add([]byte{0, 0, 1, 0, 2, 0}, []byte{0, 0, 1, 0, 2, 0}, true)
	f.Add([]byte{4, 7}, []byte{0, 0, 1, 0, 2, 0, 4, 7}, false)
	f.Fuzz(func(t *testing.T, listed, measured []byte, allowDebug bool) {
		want, got := registers(listed), registers(measured)
		p, err := attestation.NewPolicy([]attestation.Accept{{PCRs: want}}, allowDebug)
		if err != nil {
			return
		}
		if _, err := p.Check(document(got), now()); err != nil {
			return
		}
		for i, value := range want {
			if string(value) != string(got[i]) {
				t.Fatalf("PCR%d differs and was accepted", i)
			}
		}
		for i := range 3 {
			if !allowDebug && (got[i] == nil || bytes.Equal(got[i], pcr(0))) {
				t.Fatalf("PCR%d is zero and was accepted", i)
			}
		}
	})
}

// registers reads pairs of an index and the byte that fills the register.
func registers(b []byte) map[int][]byte {
	m := make(map[int][]byte)
	for ; len(b) >= 2; b = b[2:] {
		m[int(b[0])] = pcr(b[1])
	}
	return m
}

// What a policy may demand beside the registers, each missed by a little.
func TestPolicyChecksMoreThanRegisters(t *testing.T) {
	t.Parallel()
	statement, err := attestation.Statement{Purpose: attestation.PurposeClient, Keys: []attestation.Digest{{1}}, App: attestation.Digest{2}, Config: attestation.Digest{3}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	pcrs := map[int][]byte{0: pcr(1), 1: pcr(1), 2: pcr(1)}
	d := &attestation.Document{Claims: attestation.Claims{
		PCRs: pcrs, ModuleID: "i-0abc-enc0def", Timestamp: now().Add(-time.Minute), UserData: statement,
	}}
	bare := *d
	bare.UserData = nil
	tests := []struct {
		name     string
		accept   attestation.Accept
		document *attestation.Document
		want     string // empty: accepted
	}{
		{"another instance", attestation.Accept{Modules: []string{"i-0abd", "i-0ab", "i-0abc-enc0de", "0abc"}}, d, "module i-0abc-enc0def is not listed"},
		{"too old", attestation.Accept{MaxAge: time.Minute - 1}, d, "1m0s old"},
		{"another app", attestation.Accept{App: attestation.Digest{3}}, d, "app hash differs"},
		{"another configuration", attestation.Accept{Config: attestation.Digest{2}}, d, "configuration differs"},
		{"everything", attestation.Accept{MaxAge: 1, Modules: []string{"i"}, App: attestation.Digest{9}, Config: attestation.Digest{9}}, d, "not listed, 1m0s old, the limit is 1ns, app hash differs, configuration differs"},
		{"no statement", attestation.Accept{App: attestation.Digest{2}}, &bare, "says nothing of app"},
		{"instance", attestation.Accept{Modules: []string{"i-1", "i-0abc"}}, d, ""},
		{"module", attestation.Accept{Modules: []string{"i-0abc-enc0def"}}, d, ""},
		{"all of it", attestation.Accept{MaxAge: time.Minute, Modules: []string{"i-0abc"}, App: attestation.Digest{2}, Config: attestation.Digest{3}}, d, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.accept.PCRs = pcrs
			p, err := attestation.NewPolicy([]attestation.Accept{tt.accept}, false)
			if err != nil {
				t.Fatal(err)
			}
			_, err = p.Check(tt.document, now())
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if !errors.Is(err, attestation.ErrNotExpected) || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// The construction is that of the image format: SHA-384 over zeros and a SHA-384.
func TestMeasure(t *testing.T) {
	t.Parallel()
	inner := sha512.Sum384([]byte("kernel ramdisk"))
	want := sha512.Sum384(append(make([]byte, 48), inner[:]...))
	if got := attestation.Measure([]byte("kernel "), []byte("ramdisk")); !bytes.Equal(got, want[:]) {
		t.Fatalf("got %x, want %x", got, want)
	}
}
