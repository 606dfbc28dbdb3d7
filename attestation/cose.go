package attestation

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha512"
	"errors"
	"fmt"
	"math/big"

	"github.com/fxamacker/cbor/v2"
)

// A document is an untagged COSE_Sign1 message (RFC 9052, section 4.2); the tag
// 18 in front of it is accepted too:
//
//	[d2]  84                   array of four
//	      44 a1 01 38 22       protected header, as bytes: {1: -35}, ES384
//	      a0                   unprotected header: the empty map
//	      59 hh ll ...         payload: a map, as bytes, at most MaxPayload
//	      58 60 ...            signature: r and s, 48 bytes each, big endian
//
// and the signature covers the CBOR array
//
//	84  6a "Signature1"  44 a1 01 38 22  40  59 hh ll payload
const (
	// MaxPayload is the largest payload in bytes (nsm-api,
	// docs/attestation_process.md, section 3.2.3.1).
	MaxPayload = 16384
	// MaxDocument is the largest document in bytes: MaxPayload and what goes
	// around it, at its longest encoding.
	MaxDocument = MaxPayload + 256

	coordinateSize = 48 // of P-384
	signatureSize  = 2 * coordinateSize
)

var (
	coseTag       = []byte{0xd2}
	es384Header   = []byte{0xa1, 0x01, 0x38, 0x22}
	emptyMap      = []byte{0xa0}
	sigContext    = "Signature1"
	errNotAString = errors.New("not a byte string")
)

// strict decodes foreign bytes: one encoding of one value, nothing twice,
// nothing behind it, nothing unknown.
var strict = mustMode(cbor.DecOptions{
	DupMapKey:         cbor.DupMapKeyEnforcedAPF,
	IndefLength:       cbor.IndefLengthForbidden,
	TagsMd:            cbor.TagsForbidden,
	ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
	FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
	UTF8:              cbor.UTF8RejectInvalid,
	MaxNestedLevels:   4,
	MaxArrayElements:  16, // the least that the module allows to set
	MaxMapPairs:       32, // the PCRs
})

func mustMode(o cbor.DecOptions) cbor.DecMode {
	mode, err := o.DecMode()
	if err != nil {
		panic("attestation: " + err.Error()) // the options above contradict each other
	}
	return mode
}

// octets is a CBOR byte string or null, and nothing that the decoder would turn
// into one, such as an array of small numbers. Null becomes nil, the empty
// string does not.
type octets []byte

// UnmarshalCBOR is called by the decoder with one well-formed item.
func (o *octets) UnmarshalCBOR(item []byte) error {
	const null, majorBytes = 0xf6, 2
	if len(item) == 1 && item[0] == null {
		*o = nil
		return nil
	}
	if len(item) == 0 || item[0]>>5 != majorBytes {
		return errNotAString
	}
	*o = []byte{}
	return strict.Unmarshal(item, (*[]byte)(o))
}

type sign1 struct {
	_           struct{} `cbor:",toarray"`
	Protected   octets
	Unprotected cbor.RawMessage
	Payload     octets
	Signature   octets
}

// parseSign1 checks everything about the message but its signature.
func parseSign1(raw []byte) (*sign1, error) {
	if len(raw) > MaxDocument {
		return nil, fmt.Errorf("%d bytes, the limit is %d", len(raw), MaxDocument)
	}
	var m sign1
	if err := strict.Unmarshal(bytes.TrimPrefix(raw, coseTag), &m); err != nil {
		return nil, fmt.Errorf("COSE_Sign1: %v", err)
	}
	switch {
	case !bytes.Equal(m.Protected, es384Header):
		return nil, fmt.Errorf("protected header % x does not say ES384 and nothing else", m.Protected)
	case !bytes.Equal(m.Unprotected, emptyMap):
		return nil, errors.New("unprotected header is not the empty map")
	case len(m.Payload) == 0 || len(m.Payload) > MaxPayload:
		return nil, fmt.Errorf("payload of %d bytes, allowed are 1 to %d", len(m.Payload), MaxPayload)
	case len(m.Signature) != signatureSize:
		return nil, fmt.Errorf("signature of %d bytes instead of %d", len(m.Signature), signatureSize)
	}
	return &m, nil
}

// signedBytes is the Sig_structure of RFC 9052, section 4.4, with no external
// data. It is written out because it has only one shape.
func signedBytes(payload []byte) []byte {
	b := make([]byte, 0, len(payload)+32)
	b = append(b, 0x84, 0x60|byte(len(sigContext)))
	b = append(b, sigContext...)
	b = append(b, 0x40|byte(len(es384Header)))
	b = append(b, es384Header...)
	b = append(b, 0x40) // external data: none
	b = appendBytesHeader(b, len(payload))
	return append(b, payload...)
}

// appendBytesHeader appends the head of a byte string of n bytes in its shortest
// form (RFC 8949, section 3), as signer and verifier both have to; n is at most
// MaxPayload.
func appendBytesHeader(b []byte, n int) []byte {
	const majorBytes = 2 << 5
	switch {
	case n < 24:
		return append(b, majorBytes|byte(n))
	case n < 1<<8:
		return append(b, majorBytes|24, byte(n))
	default:
		return append(b, majorBytes|25, byte(n>>8), byte(n))
	}
}

// verifyES384 checks a raw signature. Where r, s verifies r, -s does as well, so
// the bytes of a document do not identify it: never deduplicate by their hash.
func verifyES384(key *ecdsa.PublicKey, payload, signature []byte) bool {
	if key.Curve != elliptic.P384() || len(signature) != signatureSize {
		return false
	}
	digest := sha512.Sum384(signedBytes(payload))
	r := new(big.Int).SetBytes(signature[:coordinateSize])
	s := new(big.Int).SetBytes(signature[coordinateSize:])
	return ecdsa.Verify(key, digest[:], r, s)
}
