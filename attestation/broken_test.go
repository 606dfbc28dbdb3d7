package attestation_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/attestation"
	"github.com/corridor-enclave/corridor/attestation/attestationtest"
)

// now is when the documents of the test's authority are made and looked at.
func now() time.Time { return time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC) }

func newChain(t testing.TB, seed string, edit func(int, *attestationtest.Level)) *attestationtest.Chain {
	t.Helper()
	c, err := attestationtest.NewChain(seed, now().Add(-time.Minute), edit)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// fields returns a good payload as a map, to be broken.
func fields(c *attestationtest.Chain) map[string]any {
	pcrs := make(map[uint64]any)
	for i := range uint64(16) {
		pcrs[i] = bytes.Repeat([]byte{byte(i + 1)}, 48)
	}
	var bundle []any
	for _, der := range c.Bundle() {
		bundle = append(bundle, der)
	}
	return map[string]any{
		"module_id": "i-1-enc2", "digest": "SHA384", "timestamp": uint64(now().UnixMilli()),
		"pcrs": pcrs, "certificate": c.Leaf().Raw, "cabundle": bundle,
		"public_key": nil, "user_data": []byte("user data"), "nonce": []byte("nonce"),
	}
}

func sign(t testing.TB, c *attestationtest.Chain, payload any) []byte {
	t.Helper()
	raw, err := c.SignPayload(payload)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	b, err := attestationtest.Encode(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A broken document, and why it has to be refused.
type broken struct {
	name string
	raw  []byte
	step attestation.Step
	why  string // part of the reason
	is   error  // the verdict; nil means ErrNotGenuine
}

func field(t testing.TB, c *attestationtest.Chain, name, key string, value any, why string) broken {
	f := fields(c)
	f[key] = value
	return broken{name: name, raw: sign(t, c, f), step: attestation.StepDocument, why: why}
}

func without(t testing.TB, c *attestationtest.Chain, key, why string) broken {
	f := fields(c)
	delete(f, key)
	return broken{name: "without " + key, raw: sign(t, c, f), step: attestation.StepDocument, why: why}
}

func brokenFields(t testing.TB, c *attestationtest.Chain) []broken {
	zeros := func(n int) []byte { return make([]byte, n) }
	pcr := func(i uint64, value any) map[uint64]any { return map[uint64]any{0: zeros(48), i: value} }
	return []broken{
		without(t, c, "module_id", "module_id of 0 bytes"),
		without(t, c, "digest", "is not SHA384"),
		without(t, c, "timestamp", "timestamp 0"),
		without(t, c, "pcrs", "pcrs are missing"),
		without(t, c, "certificate", "certificate of 0 bytes"),
		without(t, c, "cabundle", "cabundle of 0"),
		field(t, c, "module_id null", "module_id", nil, "module_id of 0 bytes"),
		field(t, c, "module_id as bytes", "module_id", []byte("i-1"), "module_id"),
		field(t, c, "module_id too long", "module_id", strings.Repeat("i", 257), "module_id of 257 bytes"),
		field(t, c, "module_id with an escape", "module_id", "i-1\x1b[2J", "printable"),
		field(t, c, "digest of another size", "digest", "SHA256", "SHA256"),
		field(t, c, "timestamp as text", "timestamp", "1", "not an unsigned integer"),
		field(t, c, "timestamp negative", "timestamp", -1, "not an unsigned integer"),
		field(t, c, "timestamp as a float", "timestamp", 1.0, "not an unsigned integer"),
		field(t, c, "timestamp beyond the calendar", "timestamp", uint64(1)<<63, "out of range"),
		field(t, c, "no PCRs", "pcrs", map[int]any{}, "pcrs are missing"),
		field(t, c, "PCR 32", "pcrs", pcr(32, zeros(48)), "index 32"),
		field(t, c, "PCR index of 64 bits", "pcrs", pcr(1<<63, zeros(48)), "index 9223372036854775808"),
		field(t, c, "PCR index as text", "pcrs", map[string]any{"0": zeros(48)}, "payload"),
		field(t, c, "PCR index negative", "pcrs", map[int]any{-1: zeros(48)}, "payload"),
		field(t, c, "PCR of SHA-256", "pcrs", pcr(1, zeros(32)), "pcrs[1] of 32 bytes"),
		field(t, c, "PCR of SHA-512", "pcrs", pcr(1, zeros(64)), "pcrs[1] of 64 bytes"),
		field(t, c, "PCR null", "pcrs", pcr(1, nil), "pcrs[1] of 0 bytes"),
		field(t, c, "PCR as an array of numbers", "pcrs", pcr(1, make([]int, 16)), "not a byte string"),
		field(t, c, "PCRs as an array", "pcrs", []any{zeros(48)}, "payload"),
		field(t, c, "certificate empty", "certificate", zeros(0), "certificate of 0 bytes"),
		field(t, c, "certificate too long", "certificate", zeros(1025), "certificate of 1025 bytes"),
		field(t, c, "cabundle empty", "cabundle", []any{}, "cabundle of 0"),
		field(t, c, "cabundle of nine", "cabundle", slices.Repeat([]any{zeros(1)}, 9), "cabundle of 9"),
		field(t, c, "cabundle of seventeen", "cabundle", slices.Repeat([]any{zeros(1)}, 17), "payload"),
		field(t, c, "cabundle with nothing in it", "cabundle", []any{zeros(0)}, "cabundle[0] of 0 bytes"),
		field(t, c, "cabundle with null in it", "cabundle", []any{zeros(1), nil}, "cabundle[1] of 0 bytes"),
		field(t, c, "cabundle with a long one", "cabundle", []any{zeros(1025)}, "cabundle[0] of 1025 bytes"),
		field(t, c, "public_key empty", "public_key", zeros(0), "public_key is empty"),
		field(t, c, "public_key too long", "public_key", zeros(1025), "public_key of 1025 bytes"),
		field(t, c, "user_data too long", "user_data", zeros(1025), "user_data of 1025 bytes"),
		field(t, c, "nonce too long", "nonce", zeros(1025), "nonce of 1025 bytes"),
		field(t, c, "nonce as text", "nonce", "nonce", "not a byte string"),
		field(t, c, "unknown field", "extra", 1, "unknown field"),
		field(t, c, "field in capitals", "NONCE", []byte{1}, "unknown field"),
	}
}

// item writes CBOR by hand where the encoder would refuse to.
func item(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func brokenMessages(t testing.TB, c *attestationtest.Chain) []broken {
	payload := encode(t, fields(c))
	message := func(edit func(*attestationtest.Message)) []byte {
		m, err := c.SignMessage(payload)
		if err != nil {
			t.Fatal(err)
		}
		edit(&m)
		return encode(t, m)
	}
	good := message(func(*attestationtest.Message) {})
	twice := item([]byte{0xaa}, payload[1:], encode(t, "nonce"), encode(t, []byte("other")))
	endless := item([]byte{0xbf}, payload[1:], []byte{0xff})
	bad := func(name, why string, raw []byte) broken {
		return broken{name: name, raw: raw, step: attestation.StepDocument, why: why}
	}
	type message4 = *attestationtest.Message
	return []broken{
		bad("nothing", "EOF", nil),
		bad("a null", "does not say ES384", []byte{0xf6}),
		bad("too long", "the limit is", make([]byte, attestation.MaxDocument+1)),
		bad("cut off", "COSE_Sign1", good[:len(good)-1]),
		bad("something behind", "extraneous", item(good, []byte{0})),
		bad("array of three", "COSE_Sign1", encode(t, []any{attestationtest.ES384(), map[int]int{}, payload})),
		bad("array of five", "COSE_Sign1", item([]byte{0x85}, good[1:], []byte{0})),
		bad("indefinite array", "COSE_Sign1", item([]byte{0x9f}, good[1:], []byte{0xff})),
		bad("tag of COSE_Sign", "COSE_Sign1", item([]byte{0xd8, 98}, good)),
		bad("deeply nested", "COSE_Sign1", bytes.Repeat([]byte{0x81}, 1000)),
		bad("ES256", "does not say ES384", message(func(m message4) { m.Protected = []byte{0xa1, 1, 0x26} })),
		bad("protected header with more", "does not say ES384", message(func(m message4) { m.Protected = encode(t, map[int]any{1: -35, 4: 1}) })),
		bad("protected header empty", "does not say ES384", message(func(m message4) { m.Protected = []byte{} })),
		bad("protected header as a map", "not a byte string", message(func(m message4) { m.Protected = map[int]int{1: -35} })),
		bad("algorithm unprotected", "unprotected header", message(func(m message4) { m.Unprotected = map[int]int{1: -35} })),
		bad("unprotected null", "unprotected header", message(func(m message4) { m.Unprotected = nil })),
		bad("payload detached", "payload of 0 bytes", message(func(m message4) { m.Payload = nil })),
		bad("payload too long", "payload of 16385 bytes", message(func(m message4) { m.Payload = make([]byte, attestation.MaxPayload+1) })),
		bad("payload is no map", "payload", sign(t, c, []int{1})),
		bad("signature short", "signature of 95 bytes", message(func(m message4) { m.Signature = make([]byte, 95) })),
		bad("signature in DER", "signature of 104 bytes", message(func(m message4) { m.Signature = make([]byte, 104) })),
		bad("signature null", "signature of 0 bytes", message(func(m message4) { m.Signature = nil })),
		bad("nonce twice", "duplicate", signRaw(t, c, twice)),
		bad("indefinite payload", "indefinite", signRaw(t, c, endless)),
		bad("something behind the payload", "extraneous", signRaw(t, c, item(payload, []byte{0}))),
		bad("tag in the payload", "tag", signRaw(t, c, item([]byte{0xc1}, payload))),
	}
}

func signRaw(t testing.TB, c *attestationtest.Chain, payload []byte) []byte {
	t.Helper()
	m, err := c.SignMessage(payload)
	if err != nil {
		t.Fatal(err)
	}
	return encode(t, m)
}

func brokenSignatures(t testing.TB, c *attestationtest.Chain) []broken {
	payload := encode(t, fields(c))
	bad := func(name string, edit func(m *attestationtest.Message, signature []byte)) broken {
		m, err := c.SignMessage(payload)
		if err != nil {
			t.Fatal(err)
		}
		edit(&m, m.Signature.([]byte))
		return broken{name: name, raw: encode(t, m), step: attestation.StepSignature, why: "has not signed"}
	}
	order := elliptic.P384().Params().N.Bytes()
	return []broken{
		bad("payload changed", func(m *attestationtest.Message, _ []byte) {
			m.Payload = bytes.Replace(payload, []byte("i-1-enc2"), []byte("i-1-enc3"), 1)
		}),
		bad("signature changed", func(_ *attestationtest.Message, s []byte) { s[95] ^= 1 }),
		bad("signature zero", func(_ *attestationtest.Message, s []byte) { clear(s) }),
		bad("r zero", func(_ *attestationtest.Message, s []byte) { clear(s[:48]) }),
		bad("s zero", func(_ *attestationtest.Message, s []byte) { clear(s[48:]) }),
		bad("r is the order", func(_ *attestationtest.Message, s []byte) { copy(s, order) }),
		bad("r and s swapped", func(_ *attestationtest.Message, s []byte) {
			r := bytes.Clone(s[:48])
			copy(s, s[48:])
			copy(s[48:], r)
		}),
		bad("signed by another enclave", func(m *attestationtest.Message, _ []byte) {
			other := newChain(t, "test", func(level int, l *attestationtest.Level) {
				if level == attestationtest.LevelLeaf {
					l.Key = ecdsaKey(t, elliptic.P384())
				}
			})
			theirs, err := other.SignMessage(payload)
			if err != nil {
				t.Fatal(err)
			}
			m.Signature = theirs.Signature
		}),
	}
}

func ecdsaKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// rechain issues a chain with one level edited, and signs a document with it. A
// leaf that cannot sign gets a signature of zeros: it has to be refused before.
func rechain(t testing.TB, name, why string, at int, edit func(*attestationtest.Level)) broken {
	t.Helper()
	c := newChain(t, "test", func(level int, l *attestationtest.Level) {
		if level == at {
			edit(l)
		}
	})
	payload := encode(t, fields(c))
	m, err := c.SignMessage(payload)
	if signature, ok := m.Signature.([]byte); err != nil || !ok || len(signature) != 96 {
		m = attestationtest.Message{Protected: attestationtest.ES384(), Unprotected: map[int]int{}, Payload: payload, Signature: make([]byte, 96)}
	}
	return broken{name: name, raw: encode(t, m), step: attestation.StepChain, why: why}
}

func brokenCertificates(t testing.TB) []broken {
	const leaf, instance, zone, region = attestationtest.LevelLeaf, attestationtest.LevelInstance, attestationtest.LevelZone, attestationtest.LevelRegion
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	extension := func(id asn1.ObjectIdentifier, critical bool, value []byte) func(*attestationtest.Level) {
		return func(l *attestationtest.Level) {
			l.Template.ExtraExtensions = append(l.Template.ExtraExtensions, pkix.Extension{Id: id, Critical: critical, Value: value})
		}
	}
	return []broken{
		rechain(t, "leaf on P-256", "certificate: key is on P-256", leaf, func(l *attestationtest.Level) { l.Key = ecdsaKey(t, elliptic.P256()) }),
		rechain(t, "leaf on P-521", "certificate: key is on P-521", leaf, func(l *attestationtest.Level) { l.Key = ecdsaKey(t, elliptic.P521()) }),
		rechain(t, "leaf with RSA", "certificate: key is RSA", leaf, func(l *attestationtest.Level) { l.Key = rsaKey }),
		rechain(t, "leaf with Ed25519", "certificate: key is Ed25519", leaf, func(l *attestationtest.Level) { l.Key = edKey }),
		rechain(t, "leaf is a CA", "certificate: the leaf is a CA", leaf, func(l *attestationtest.Level) {
			l.Template.IsCA = true
			l.Template.KeyUsage |= x509.KeyUsageCertSign
		}),
		rechain(t, "leaf may not sign", "lacks digitalSignature", leaf, func(l *attestationtest.Level) { l.Template.KeyUsage = x509.KeyUsageKeyEncipherment }),
		rechain(t, "leaf without key usage", "lacks digitalSignature", leaf, func(l *attestationtest.Level) { l.Template.KeyUsage = 0 }),
		rechain(t, "leaf without basic constraints", "no basic constraints", leaf, func(l *attestationtest.Level) { l.Template.BasicConstraintsValid = false }),
		rechain(t, "leaf for a web server", "extension 2.5.29.37", leaf, func(l *attestationtest.Level) {
			l.Template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}),
		rechain(t, "leaf with a critical extension", "critical extension 1.2.3.4", leaf, extension(asn1.ObjectIdentifier{1, 2, 3, 4}, true, []byte{5, 0})),
		rechain(t, "instance on P-256", "cabundle[3]: key is on P-256", instance, func(l *attestationtest.Level) {
			l.Key = ecdsaKey(t, elliptic.P256())
		}),
		rechain(t, "instance is no CA", "cabundle[3]: not a CA", instance, func(l *attestationtest.Level) {
			l.Template.IsCA, l.Template.MaxPathLen, l.Template.MaxPathLenZero = false, 0, false
		}),
		rechain(t, "instance may not sign certificates", "cabundle[3]: key usage lacks keyCertSign", instance, func(l *attestationtest.Level) { l.Template.KeyUsage = x509.KeyUsageDigitalSignature }),
		rechain(t, "zone with path length 0", "cabundle[2]: path length 0, but 1 CAs below", zone, func(l *attestationtest.Level) { l.Template.MaxPathLen = 0 }),
		rechain(t, "region with path length 1", "cabundle[1]: path length 1, but 2 CAs below", region, func(l *attestationtest.Level) { l.Template.MaxPathLen = 1 }),
		rechain(t, "region with name constraints", "extension 2.5.29.30", region, func(l *attestationtest.Level) {
			l.Template.PermittedDNSDomains = []string{"example.com"}
		}),
		rechain(t, "zone with policy constraints", "critical extension 2.5.29.36", zone, extension(asn1.ObjectIdentifier{2, 5, 29, 36}, true, []byte{0x30, 0})),
		rechain(t, "root of the same name and another key", "has not signed the first certificate", attestationtest.LevelRoot, func(l *attestationtest.Level) { l.Key = ecdsaKey(t, elliptic.P384()) }),
	}
}

func brokenBundles(t testing.TB, c *attestationtest.Chain) []broken {
	bundle := c.Bundle()
	other := newChain(t, "other", nil)
	renamed := newChain(t, "test", func(level int, l *attestationtest.Level) {
		if level == attestationtest.LevelZone {
			l.Key = ecdsaKey(t, elliptic.P384())
		}
	})
	bad := func(name, why string, certificate []byte, bundle ...[]byte) broken {
		f := fields(c)
		f["certificate"], f["cabundle"] = certificate, bundle
		return broken{name: name, raw: sign(t, c, f), step: attestation.StepChain, why: why}
	}
	leaf := c.Leaf().Raw
	return []broken{
		bad("another authority", `no trusted root is called`, other.Leaf().Raw, other.Bundle()...),
		bad("another authority behind the trusted root", "no trusted root is called", other.Leaf().Raw, item(bundle[0]), other.Bundle()[1], other.Bundle()[2], other.Bundle()[3]),
		bad("leaf first", "no trusted root is called", leaf, bundle[0], bundle[3], bundle[2], bundle[1]),
		bad("one missing", "the certificate above is", leaf, bundle[0], bundle[1], bundle[3]),
		bad("one twice", "path length 1, but 2 CAs below", leaf, bundle[0], bundle[1], bundle[2], bundle[2], bundle[3]),
		bad("only a root", "no trusted root is called", leaf, bundle[0]),
		bad("root twice", "cabundle[1]: issued by itself", leaf, bundle[0], bundle[0], bundle[1], bundle[2], bundle[3]),
		bad("zone of the same name and another key", "has not signed it", leaf, bundle[0], bundle[1], renamed.Bundle()[2], bundle[3]),
		bad("certificate is no certificate", "certificate: x509", []byte{0x30, 0}, bundle...),
		bad("certificate with something behind", "trailing", item(leaf, []byte{0}), bundle...),
		bad("cabundle is no certificate", "cabundle[2]: x509", leaf, bundle[0], bundle[1], []byte("zone"), bundle[3]),
		bad("certificate is the instance's", "certificate: the leaf is a CA", bundle[3], bundle[0], bundle[1], bundle[2]),
	}
}

func brokenTimes(t testing.TB) []broken {
	bad := func(name, why string, at int, notBefore, notAfter time.Time) broken {
		b := rechain(t, name, why, at, func(l *attestationtest.Level) {
			l.Template.NotBefore, l.Template.NotAfter = notBefore, notAfter
		})
		b.step, b.is = attestation.StepValidity, attestation.ErrNotFresh
		return b
	}
	past, future := now().Add(-time.Hour), now().Add(time.Hour)
	return []broken{
		bad("leaf expired", "certificate was valid until", attestationtest.LevelLeaf, past, now().Add(-time.Second)),
		bad("leaf not yet valid", "certificate is valid from", attestationtest.LevelLeaf, now().Add(time.Second), future),
		bad("instance expired", "cabundle[3] was valid until", attestationtest.LevelInstance, past, now().Add(-time.Second)),
		bad("region not yet valid", "cabundle[1] is valid from", attestationtest.LevelRegion, now().Add(time.Second), future),
	}
}

func brokenDocuments(t testing.TB, c *attestationtest.Chain) []broken {
	return slices.Concat(
		brokenFields(t, c), brokenMessages(t, c), brokenSignatures(t, c),
		brokenCertificates(t), brokenBundles(t, c), brokenTimes(t),
	)
}
