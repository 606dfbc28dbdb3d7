package eif_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/attestation/eif"
)

func image(t testing.TB) *eif.Image {
	t.Helper()
	m, err := eif.New(eif.Parts{
		Kernel: []byte("kernel"), CommandLine: "console=ttyS0", Ramdisks: [][]byte{[]byte("first"), []byte("second"), []byte("third")},
		Name: "app", Version: "1.4", Built: time.Unix(0, 0),
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func encode(t testing.TB, m *eif.Image) []byte {
	t.Helper()
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// repair puts the right CRC on bytes that were changed on purpose.
func repair(b []byte) []byte {
	sum := crc32.NewIEEE()
	sum.Write(b[:544])
	sum.Write(b[548:])
	binary.BigEndian.PutUint32(b[544:], sum.Sum32())
	return b
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	good := encode(t, image(t))
	edit := func(f func(b []byte) []byte) []byte { return repair(f(bytes.Clone(good))) }
	set := func(at int, value ...byte) []byte {
		return edit(func(b []byte) []byte { copy(b[at:], value); return b })
	}
	tests := []struct {
		name, want string
		in         []byte
	}{
		{"nothing", "the header alone", nil},
		{"header cut off", "the header alone", good[:547]},
		{"another magic", "does not begin", set(0, '.', 'E', 'I', 'F')},
		{"version 1", "version 1", set(5, 1)},
		{"version 5", "version 5", set(5, 5)},
		{"unknown flags", "flags 0x2", set(7, 2)},
		{"33 sections", "33 sections", set(26, 0, 33)},
		{"CRC", "CRC", append(bytes.Clone(good[:len(good)-1]), 'x')},
		{"one section less", "behind the last section", set(27, 5)},
		{"one section more", "section 6: at 0", set(27, 7)},
		{"sections overlap", "section 1: at", set(28+8+7, 0)},
		{"sizes differ", "by its own header", set(284+7, 7)},
		{"size beyond the end", "the image ends", edit(func(b []byte) []byte {
			copy(b[284:], []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
			copy(b[548+4:], []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
			return b
		})},
		{"flags of a section", "section 0: flags", set(548+3, 1)},
		{"kind 0", "not one kernel", set(548+1, 0)},
		{"kind 6", "there is no section of kind 6", edit(func(b []byte) []byte {
			at := binary.BigEndian.Uint64(b[28+8*5:])
			b[at+1] = 6
			return b
		})},
		{"two kernels", "not one kernel", edit(func(b []byte) []byte {
			at := binary.BigEndian.Uint64(b[28+8*5:])
			b[at+1] = 1
			return b
		})},
		{"cut off in a section's header", "cut off", edit(func(b []byte) []byte { return b[:548+11] })},
		{"something behind", "1 bytes behind", edit(func(b []byte) []byte { return append(b, 0) })},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m, err := eif.Parse(tt.in)
			if m != nil || !errors.Is(err, eif.ErrMalformed) || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("Parse = %v, %v; want %q", m, err, tt.want)
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for name, p := range map[string]eif.Parts{
		"no kernel": {Ramdisks: [][]byte{{1}}}, "no ramdisk": {Kernel: []byte{1}},
		"line break":          {Kernel: []byte{1}, Ramdisks: [][]byte{{1}}, CommandLine: "a\nb"},
		"too many ramdisks":   {Kernel: []byte{1}, Ramdisks: make([][]byte, 30)},
		"command line in UTF": {Kernel: []byte{1}, Ramdisks: [][]byte{{1}}, CommandLine: "ä"},
	} {
		if m, err := eif.New(p); err == nil {
			t.Errorf("%s: %v", name, m)
		}
	}
}

// The bytes of an image are what the format says, field by field, counted by hand.
func TestEncode(t *testing.T) {
	t.Parallel()
	b := encode(t, image(t))
	if got := hex.EncodeToString(b[:28]); got != "2e656966"+"0004"+"0000"+"0000000040000000"+"0000000000000002"+"0000"+"0006" {
		t.Errorf("header is %s", got)
	}
	if got := hex.EncodeToString(b[548 : 548+18]); got != "0001"+"0000"+"0000000000000006"+hex.EncodeToString([]byte("kernel")) {
		t.Errorf("first section is %s", got)
	}
	if at := binary.BigEndian.Uint64(b[36:]); at != 548+18 || binary.BigEndian.Uint64(b[292:]) != 13 {
		t.Errorf("second section is at %d", at)
	}
	if !bytes.Equal(repair(bytes.Clone(b)), b) {
		t.Error("the CRC is not that of IEEE without its own field")
	}
	m, err := eif.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if again := encode(t, m); !bytes.Equal(again, b) || len(eif.Diff(m, image(t))) != 0 {
		t.Errorf("a round trip changes it: %q", eif.Diff(m, image(t)))
	}
}

func measure(parts string) string {
	inner := sha512.Sum384([]byte(parts))
	outer := sha512.Sum384(append(make([]byte, 48), inner[:]...))
	return hex.EncodeToString(outer[:])
}

func TestMeasurements(t *testing.T) {
	t.Parallel()
	pcrs, err := image(t).Measurements()
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range map[int]string{
		0: measure("kernelconsole=ttyS0firstsecondthird"), 1: measure("kernelconsole=ttyS0first"), 2: measure("secondthird"),
	} {
		if got := hex.EncodeToString(pcrs[i]); got != want {
			t.Errorf("PCR%d is %s, want %s", i, got, want)
		}
	}
	if len(pcrs) != 3 {
		t.Errorf("%d registers, want 3", len(pcrs))
	}
}

func signer(t testing.TB, curve elliptic.Curve) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate, key
}

func TestSign(t *testing.T) {
	t.Parallel()
	certificate, key := signer(t, elliptic.P384())
	m := image(t)
	before, err := m.Measurements()
	if err != nil {
		t.Fatal(err)
	}
	other, otherKey := signer(t, elliptic.P384())
	small, smallKey := signer(t, elliptic.P256())
	if m.Sign(other, key) == nil || m.Sign(small, smallKey) == nil {
		t.Error("signed with a key that is not the certificate's, or on P-256")
	}
	for range 2 { // the second signature replaces the first
		if err := m.Sign(certificate, key); err != nil {
			t.Fatal(err)
		}
	}
	signed, err := eif.Parse(encode(t, m))
	if err != nil {
		t.Fatal(err)
	}
	after, err := signed.Measurements()
	if err != nil || hex.EncodeToString(after[8]) != measure(string(certificate.Raw)) || !bytes.Equal(after[0], before[0]) || len(signed.Sections) != 7 {
		t.Fatalf("registers after signing: %x, %v", after, err)
	}
	again := image(t)
	if err := again.Sign(certificate, key); err != nil || !bytes.Equal(encode(t, again), encode(t, m)) {
		t.Error("equal images get different signatures")
	}

	signed.Sections[1].Content = []byte("console=off")
	if _, err := signed.Measurements(); !errors.Is(err, eif.ErrMalformed) || !strings.Contains(err.Error(), "another image") {
		t.Errorf("changed after signing: %v", err)
	}
	foreign := image(t)
	if err := foreign.Sign(other, otherKey); err != nil {
		t.Fatal(err)
	}
	section := &m.Sections[6]
	for name, content := range map[string][]byte{
		"nothing": nil, "an empty list": {0x80}, "null": {0xf6}, "cut off": section.Content[:100],
		"a byte behind": append(bytes.Clone(section.Content), 0), "too long": make([]byte, 65<<10),
	} {
		section.Content = content
		if s, err := m.Signer(); s != nil || content != nil && !errors.Is(err, eif.ErrMalformed) {
			t.Errorf("%s: %v, %v", name, s, err)
		}
	}
}

func TestDiff(t *testing.T) {
	t.Parallel()
	pack := func(f eif.Files) []byte {
		b, err := f.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	a, b := image(t), image(t)
	b.ARM64, b.Memory, b.CPUs = true, 1, 1
	a.Sections[1].Content, b.Sections[1].Content = []byte("a=1"), []byte("a=2")
	b.Sections[0].Content = []byte("kennel")
	file := func(mode uint32, text string) eif.File { return eif.File{Mode: mode, Content: []byte(text)} }
	a.Sections[3].Content = pack(eif.Files{"same": file(0o100644, "x"), "mode": file(0o100644, ""), "text": file(0o100644, "abc"), "old": file(0o100644, "")})
	b.Sections[3].Content = pack(eif.Files{"same": file(0o100644, "x"), "mode": file(0o100755, ""), "text": file(0o100644, "abd"), "new": file(0o100644, "")})
	b.Sections = b.Sections[:5]
	b.Sections[4].Kind = eif.Signature
	got := strings.Join(eif.Diff(a, b), "\n")
	for _, want := range []string{
		"architecture: x86_64, arm64", "default memory: 1073741824, 1", "default CPUs: 2, 1", "number of sections: 6, 5",
		"section 0 (kernel): 6 bytes, 6 bytes, first difference at 2", `section 1 (command line): "a=1", "a=2"`,
		`"mode" has mode 100644, 100755`, `"new" is only in the second`, `"old" is only in the first`,
		`"text" has 3 bytes, 3 bytes, first difference at 2`, "section 4: ramdisk, signature",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the difference does not say %q", want)
		}
	}
	if strings.Contains(got, "same") || t.Failed() {
		t.Logf("difference:\n%s", got)
	}
}

func FuzzParse(f *testing.F) {
	certificate, key := signer(f, elliptic.P384())
	m := image(f)
	f.Add(encode(f, m))
	if err := m.Sign(certificate, key); err != nil {
		f.Fatal(err)
	}
	f.Add(encode(f, m))
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) >= 548 {
			in = repair(bytes.Clone(in)) // or hardly anything would pass
		}
		m, err := eif.Parse(in)
		if err != nil {
			return
		}
		if len(eif.Diff(m, m)) != 0 {
			t.Fatal("an image differs from itself")
		}
		if _, err := m.Measurements(); err != nil && !errors.Is(err, eif.ErrMalformed) {
			t.Fatal(err)
		}
		again, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		// Version and unused fields are the encoder's own; all else is kept.
		if len(again) != len(in) || !bytes.Equal(again[548:], in[548:]) {
			t.Fatal("a round trip changes the sections")
		}
	})
}
