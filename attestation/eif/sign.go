package eif

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"

	"github.com/fxamacker/cbor/v2"
)

// The signature section is CBOR, with byte strings written as arrays of numbers,
// as its inventors' library writes them:
//
//	[{"signing_certificate": [PEM...], "signature": [COSE_Sign1...]}]
//
// and the payload of the COSE_Sign1 message, which is ES384 and untagged, is
//
//	{"register_index": 0, "register_value": [PCR0...]}
type signedRegister struct {
	Certificate numbers `cbor:"signing_certificate"`
	Signature   numbers `cbor:"signature"`
}

type register struct {
	Index int     `cbor:"register_index"`
	Value numbers `cbor:"register_value"`
}

type sign1 struct {
	_           struct{} `cbor:",toarray"`
	Protected   []byte
	Unprotected map[int]int
	Payload     []byte
	Signature   []byte
}

// numbers are bytes that are encoded as an array.
type numbers []uint16

const (
	coordinateSize = 48 // of P-384
	maxSignature   = 64 << 10
)

var es384Header = []byte{0xa1, 0x01, 0x38, 0x22}

func toNumbers(b []byte) numbers {
	list := make(numbers, len(b))
	for i, c := range b {
		list[i] = uint16(c)
	}
	return list
}

func (n numbers) bytes() ([]byte, error) {
	b := make([]byte, len(n))
	for i, c := range n {
		if c > 0xff {
			return nil, fmt.Errorf("%d is no byte", c)
		}
		b[i] = byte(c)
	}
	return b, nil
}

// Sign puts a signature over PCR0 into the image, in place of one that is there.
// The certificate's key has to be on P-384. Signatures follow RFC 6979, so that
// equal images get equal ones.
func (m *Image) Sign(certificate *x509.Certificate, key *ecdsa.PrivateKey) error {
	public, ok := certificate.PublicKey.(*ecdsa.PublicKey)
	if !ok || public.Curve != elliptic.P384() || !public.Equal(key.Public()) {
		return errors.New("eif: sign: the certificate is not that of the key, or the key is not on P-384")
	}
	pcrs, err := m.unsigned().Measurements()
	if err != nil {
		return err
	}
	message, err := signRegister(pcrs[0], key)
	if err != nil {
		return fmt.Errorf("eif: sign: %w", err)
	}
	section, err := cbor.Marshal([]signedRegister{{
		Certificate: toNumbers(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})),
		Signature:   toNumbers(message),
	}})
	if err != nil {
		return fmt.Errorf("eif: sign: %w", err)
	}
	m.Sections = append(m.unsigned().Sections, Section{Kind: Signature, Content: section})
	return nil
}

// unsigned is the image without its signature.
func (m *Image) unsigned() *Image {
	bare := *m
	bare.Sections = nil
	for _, s := range m.Sections {
		if s.Kind != Signature {
			bare.Sections = append(bare.Sections, s)
		}
	}
	return &bare
}

func signRegister(value []byte, key *ecdsa.PrivateKey) ([]byte, error) {
	payload, err := cbor.Marshal(register{Index: 0, Value: toNumbers(value)})
	if err != nil {
		return nil, err
	}
	digest, err := signedDigest(payload)
	if err != nil {
		return nil, err
	}
	der, err := key.Sign(nil, digest, crypto.SHA384)
	if err != nil {
		return nil, err
	}
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &rs); err != nil {
		return nil, err
	}
	raw := make([]byte, 2*coordinateSize)
	rs.R.FillBytes(raw[:coordinateSize])
	rs.S.FillBytes(raw[coordinateSize:])
	return cbor.Marshal(sign1{Protected: es384Header, Unprotected: map[int]int{}, Payload: payload, Signature: raw})
}

// signedDigest is the SHA-384 of the Sig_structure (RFC 9052, section 4.4).
func signedDigest(payload []byte) ([]byte, error) {
	signed, err := cbor.Marshal([]any{"Signature1", es384Header, []byte{}, payload})
	if err != nil {
		return nil, err
	}
	digest := sha512.Sum384(signed)
	return digest[:], nil
}

// Signer returns the certificate of the image's signature, after checking that
// its key has signed this image; nil if there is no signature. Who the signer is,
// nobody says but PCR8. Errors match ErrMalformed.
func (m *Image) Signer() (*x509.Certificate, error) {
	section := m.section(Signature)
	if section == nil {
		return nil, nil
	}
	certificate, err := m.checkSignature(section)
	if err != nil {
		return nil, fmt.Errorf("eif: %w: signature: %w", ErrMalformed, err)
	}
	return certificate, nil
}

func (m *Image) checkSignature(section []byte) (*x509.Certificate, error) {
	if len(section) > maxSignature {
		return nil, fmt.Errorf("%d bytes, the limit is %d", len(section), maxSignature)
	}
	decoder, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		MaxNestedLevels: 4, MaxArrayElements: maxSignature, ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
	}.DecMode()
	if err != nil {
		return nil, err
	}
	var list []signedRegister
	if err := decoder.Unmarshal(section, &list); err != nil {
		return nil, err
	}
	if len(list) != 1 {
		return nil, fmt.Errorf("%d registers are signed instead of one", len(list))
	}
	certificate, err := parseSigner(list[0].Certificate)
	if err != nil {
		return nil, err
	}
	raw, err := list[0].Signature.bytes()
	if err != nil {
		return nil, err
	}
	var message sign1
	if err := decoder.Unmarshal(raw, &message); err != nil {
		return nil, err
	}
	var signed register
	if err := decoder.Unmarshal(message.Payload, &signed); err != nil {
		return nil, err
	}
	return certificate, m.checkMessage(certificate, message, signed)
}

func parseSigner(text numbers) (*x509.Certificate, error) {
	b, err := text.bytes()
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("the certificate is not PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}

func (m *Image) checkMessage(certificate *x509.Certificate, message sign1, signed register) error {
	key, ok := certificate.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P384() || !bytes.Equal(message.Protected, es384Header) || len(message.Signature) != 2*coordinateSize {
		return errors.New("not ES384")
	}
	digest, err := signedDigest(message.Payload)
	if err != nil {
		return err
	}
	r := new(big.Int).SetBytes(message.Signature[:coordinateSize])
	s := new(big.Int).SetBytes(message.Signature[coordinateSize:])
	if !ecdsa.Verify(key, digest, r, s) {
		return errors.New("the certificate's key has not signed it")
	}
	pcrs, err := m.unsigned().Measurements()
	if err != nil {
		return err
	}
	value, err := signed.Value.bytes()
	if err != nil || signed.Index != 0 || !bytes.Equal(value, pcrs[0]) {
		return errors.New("it is over another image")
	}
	return nil
}
