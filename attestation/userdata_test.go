package attestation_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"testing"

	"github.com/corridor-enclave/corridor/attestation"
)

func TestParseNitridingUserDataRefuses(t *testing.T) {
	t.Parallel()
	good := attestation.NitridingUserData([]byte("certificate"), [32]byte{})
	edit := func(f func([]byte)) []byte {
		b := bytes.Clone(good)
		f(b)
		return b
	}
	tests := []struct {
		name string
		in   []byte
	}{
		{name: "nothing", in: nil},
		{name: "one hash", in: good[:34]},
		{name: "a byte short", in: good[:67]},
		{name: "a byte long", in: append(bytes.Clone(good), 0)},
		{name: "first code", in: edit(func(b []byte) { b[0] = 0x13 })},
		{name: "first length", in: edit(func(b []byte) { b[1] = 0x1f })},
		{name: "second code", in: edit(func(b []byte) { b[34] = 0 })},
		{name: "second length", in: edit(func(b []byte) { b[35] = 0x21 })},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if cert, app, err := attestation.ParseNitridingUserData(tt.in); err == nil || cert != [32]byte{} || app != [32]byte{} {
				t.Fatalf("got %x, %x, %v; want zeros and an error", cert, app, err)
			}
		})
	}
}

// The vector is spelt out: both ends of the network have to agree on it.
func TestNitridingUserDataVector(t *testing.T) {
	t.Parallel()
	const want = "1220" + "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" + // SHA-256("abc")
		"1220" + "0100000000000000000000000000000000000000000000000000000000000000"
	if got := attestation.NitridingUserData([]byte("abc"), [32]byte{1}); hex.EncodeToString(got) != want {
		t.Fatalf("got %x, want %s", got, want)
	}
}

func FuzzParseNitridingUserData(f *testing.F) {
	f.Add(attestation.NitridingUserData([]byte("certificate"), sha256.Sum256([]byte("app"))))
	f.Add([]byte{0x12, 0x20})
	f.Fuzz(func(t *testing.T, in []byte) {
		cert, app, err := attestation.ParseNitridingUserData(in)
		if err != nil {
			return
		}
		out := append([]byte{0x12, 0x20}, cert[:]...)
		out = append(append(out, 0x12, 0x20), app[:]...)
		if !bytes.Equal(out, in) {
			t.Fatalf("round trip changed the bytes: %x -> %x", in, out)
		}
	})
}
