package cms_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/corridor-enclave/corridor/attestation/cms"
	"github.com/corridor-enclave/corridor/attestation/cms/cmstest"
)

// keyOnce is the tests' key: making one takes a while.
var keyOnce = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

func newKey(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	key, err := keyOnce()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func seal(t testing.TB, key *rsa.PublicKey, plaintext string, parts int) []byte {
	t.Helper()
	b, err := cmstest.Seal(key, []byte(plaintext), parts)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOpen(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	for _, length := range []int{0, 1, 15, 16, 17, 32, 1000, 6144} {
		for _, parts := range []int{0, 1, 16, 1000, 10000} {
			plaintext := strings.Repeat("x", length)
			e, err := cms.Parse(seal(t, &key.PublicKey, plaintext, parts))
			if err != nil {
				t.Fatalf("%d bytes in parts of %d: %v", length, parts, err)
			}
			if got, err := e.Open(key); err != nil || string(got) != plaintext {
				t.Errorf("%d bytes in parts of %d: %q, %v", length, parts, got, err)
			}
		}
	}
}

func TestNotForThisKey(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	e, err := cms.Parse(seal(t, &key.PublicKey, "secret", 0))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := e.Open(other); !errors.Is(err, cms.ErrNotForThisKey) || got != nil {
		t.Errorf("another key: %q, %v", got, err)
	}
	// The last block but one decides about the padding; here that is the IV.
	whole := seal(t, &key.PublicKey, "secret", 0)
	for i := range 16 {
		changed := bytes.Clone(whole)
		changed[len(changed)-16-2-16+i] ^= 0x80
		e, err := cms.Parse(changed)
		if err != nil {
			t.Fatal(err)
		}
		got, err := e.Open(key)
		if i < len("secret") { // nothing in the envelope says that it is unchanged
			if err != nil || string(got) == "secret" {
				t.Errorf("IV changed at %d: %q, %v", i, got, err)
			}
		} else if !errors.Is(err, cms.ErrNotForThisKey) || got != nil {
			t.Errorf("padding changed at %d: %q, %v", i, got, err)
		}
	}
}

// TestMalformed changes one thing in a good envelope.
func TestMalformed(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	good, definite := seal(t, &key.PublicKey, "secret", 8), seal(t, &key.PublicKey, "secret", 0)
	swap := func(in []byte, from, to string) []byte {
		if !bytes.Contains(in, []byte(from)) {
			t.Fatalf("% x is not there", from)
		}
		return bytes.Replace(bytes.Clone(in), []byte(from), []byte(to), 1)
	}
	const sha256, mgf1, oaep = "\x60\x86\x48\x01\x65\x03\x04\x02\x01", "\x86\xf7\x0d\x01\x01\x08", "\x86\xf7\x0d\x01\x01\x07"
	tests := []struct {
		name string
		in   []byte
		says string
	}{
		{"nothing", nil, "cut off"},
		{"too much", make([]byte, cms.MaxSize+1), "the limit is"},
		{"something behind", append(bytes.Clone(good), 0), "1 bytes behind"},
		{"cut", good[:len(good)-1], "cut off"},
		{"cut, definite", definite[:len(definite)-1], "cut off"},
		{"an end", []byte{0, 0}, "end where nothing ends"},
		{"tag of two bytes", []byte{0x3f, 0x81, 0x00}, "tag of several bytes"},
		{"primitive without length", []byte{0x04, 0x80, 0, 0}, "indefinite length"},
		{"length too long", []byte{0x04, 0x81, 0x01, 0}, "shortest form"},
		{"length with a zero in front", append([]byte{0x04, 0x82, 0x00, 0x80}, make([]byte, 128)...), "shortest form"},
		{"length of four bytes", []byte{0x04, 0x84, 0, 0, 0, 1, 0}, "cut off"},
		{"length beyond the end", []byte{0x04, 0x02, 0}, "cut off"},
		{"deep", bytes.Repeat([]byte{0x30, 0x80}, 100), "too deep"},
		{"no sequence", []byte{0x04, 0x00}, "no sequence"},
		{"empty", []byte{0x30, 0x00}, "0 elements"},
		{"signed data", swap(good, "\x01\x07\x03", "\x01\x07\x02"), "not one EnvelopedData"},
		{"enveloped data of version 0", swap(good, "\x02\x01\x02\x31", "\x02\x01\x00\x31"), "not version 2"},
		{"recipient of version 0", swap(good, "\x02\x01\x02\x80", "\x02\x01\x00\x80"), "recipient: not version 2"},
		{"another digest", swap(good, sha256, "\x60\x86\x48\x01\x65\x03\x04\x02\x02"), "not RSAES-OAEP"},
		{"another digest in MGF1", func() []byte {
			at := bytes.LastIndex(good, []byte(sha256))
			changed := bytes.Clone(good)
			changed[at+8] = 2
			return changed
		}(), "not RSAES-OAEP"},
		{"another mask", swap(good, mgf1, "\x86\xf7\x0d\x01\x01\x09"), "not RSAES-OAEP"},
		{"PKCS #1 v1.5", swap(good, oaep, "\x86\xf7\x0d\x01\x01\x01"), "not RSAES-OAEP"},
		{"parameters of a digest", swap(good, sha256+"\x05\x00", sha256+"\x04\x00"), "not RSAES-OAEP"},
		{"not data", swap(good, "\x01\x07\x01", "\x01\x07\x02"), "not data"},
		{"AES-128", swap(good, "\x03\x04\x01\x2a", "\x03\x04\x01\x02"), "not AES-256-CBC"},
		{"part of another tag", swap(good, "\xa0\x80\x04", "\xa0\x80\x02"), "a part has tag 02"},
		{"content of another tag", swap(good, "\xa0\x80\x04", "\xa1\x80\x04"), "content: tag a1"},
		{"no ciphertext", swap(definite, "\x80\x10", "\x81\x10"), "content: tag 81"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e, err := cms.Parse(tt.in)
			if e != nil || !errors.Is(err, cms.ErrMalformed) || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("%v, %v; want %q", e, err, tt.says)
			}
		})
	}
	half := seal(t, &key.PublicKey, "secret", 8)
	at := bytes.LastIndex(half, []byte{0x04, 0x08})
	if _, err := cms.Parse(append(bytes.Clone(half[:at]), half[at+10:]...)); err == nil || !strings.Contains(err.Error(), "ciphertext of 8 bytes") {
		t.Errorf("half a block: %v", err)
	}
}

// TestLabel: a label that is empty in so many words is as good as none; another is
// not ours.
func TestLabel(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	good := seal(t, &key.PublicKey, "secret", 0)
	// labelled puts a pSource of the parameters in, and mends the lengths around it:
	// those of the parameters, the algorithm, the recipient, the set and all above.
	labelled := func(source string) []byte {
		oaep := []byte("\x30\x3c\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x07\x30\x2f")
		at := bytes.Index(good, oaep)
		if at < 0 {
			t.Fatal("the algorithm is not there")
		}
		end := at + 2 + 0x3c
		b := append(bytes.Clone(good[:end]), source...)
		b = append(b, good[end:]...)
		b[at+1] += byte(len(source))
		b[at+14] += byte(len(source))
		for i := range at { // what has the recipient in it has a length of two bytes
			if (good[i] == 0x30 || good[i] == 0x31 || good[i] == 0xa0) && good[i+1] == 0x82 {
				n := int(good[i+2])<<8 | int(good[i+3])
				if i+4+n > end && i+4+n <= len(good) {
					n += len(source)
					b[i+2], b[i+3] = byte(n>>8), byte(n)
				}
			}
		}
		return b
	}
	const empty = "\xa2\x0f\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x09\x04\x00"
	e, err := cms.Parse(labelled(empty))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := e.Open(key); err != nil || string(got) != "secret" {
		t.Errorf("%q, %v", got, err)
	}
	for _, source := range []string{
		"\xa2\x10\x30\x0e\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x09\x04\x01x", "\xa2\x00", "\xa3" + empty[1:], "\x05\x00",
	} {
		if _, err := cms.Parse(labelled(source)); !errors.Is(err, cms.ErrMalformed) || !strings.Contains(err.Error(), "RSAES-OAEP") {
			t.Errorf("% x: %v", source, err)
		}
	}
}

// TestAWS: an answer of AWS's own has the form.
func TestAWS(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile(filepath.Join("testdata", "aws-kms.ber"))
	if err != nil {
		t.Fatal(err)
	}
	e, err := cms.Parse(b)
	if err != nil || len(e.KeyName) != 32 {
		t.Fatalf("%+v, %v", e, err)
	}
	if _, err := e.Open(newKey(t)); !errors.Is(err, cms.ErrNotForThisKey) {
		t.Errorf("opened with another key: %v", err)
	}
}

// TestOpenSSL opens what a program of others has closed.
func TestOpenSSL(t *testing.T) {
	t.Parallel()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		if os.Getenv("CORRIDOR_REQUIRE") == "all" {
			t.Fatal("needs openssl (remedy: apt-get install openssl)")
		}
		t.Skipf("needs openssl (remedy: apt-get install openssl)")
	}
	key, dir := newKey(t), t.TempDir()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a"}, SubjectKeyId: []byte("key")}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, plain := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "plain")
	if err := os.WriteFile(certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	for length := range 40 {
		plaintext := strings.Repeat("x", length*length*3)
		if err := os.WriteFile(plain, []byte(plaintext), 0o600); err != nil {
			t.Fatal(err)
		}
		args := []string{"cms", "-encrypt", "-binary", "-in", plain, "-outform", "DER", "-aes256", "-keyid", "-recip", certificate,
			"-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha256", "-keyopt", "rsa_mgf1_md:sha256"}
		if length%2 == 1 {
			args = append(args, "-stream") // indefinite lengths
		}
		sealed, err := exec.CommandContext(t.Context(), openssl, args...).Output()
		if err != nil {
			t.Fatal(err)
		}
		e, err := cms.Parse(sealed)
		if err != nil {
			t.Fatalf("%d bytes: %v\n%x", len(plaintext), err, sealed)
		}
		if got, err := e.Open(key); err != nil || string(got) != plaintext || string(e.KeyName) != "key" {
			t.Fatalf("%d bytes: %d bytes for %q, %v", len(plaintext), len(got), e.KeyName, err)
		}
	}
}

// FuzzParse: no bytes crash it, and what it takes can be opened or is refused.
func FuzzParse(f *testing.F) {
	key := newKey(f)
	real, err := os.ReadFile(filepath.Join("testdata", "aws-kms.ber"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(real)
	for _, parts := range []int{0, 8, 1000} {
		f.Add(seal(f, &key.PublicKey, "secret", parts))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := cms.Parse(b)
		if err != nil {
			if e != nil || !errors.Is(err, cms.ErrMalformed) {
				t.Fatalf("%v, %v", e, err)
			}
			return
		}
		if plaintext, err := e.Open(key); (err == nil) == (plaintext == nil) {
			t.Fatalf("%q, %v", plaintext, err)
		}
	})
}
