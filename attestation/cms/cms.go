// Package cms opens what a key service sends to an enclave instead of a plaintext:
// CMS EnvelopedData (RFC 5652, section 6) for one RSA key. It takes what AWS KMS
// sends, in BER with definite and indefinite lengths, and nothing else: one
// recipient by its key's identifier, RSAES-OAEP with SHA-256, AES-256-CBC. It asks
// no key service (enclave/kms does) and makes no envelopes.
//
//	ContentInfo    30 { envelopedData, a0 { EnvelopedData } }
//	EnvelopedData  30 { 2, 31 { Recipient }, Content }
//	Recipient      30 { 2, 80 key identifier, 30 { RSAES-OAEP, SHA-256, MGF1 with SHA-256 }, 04 encrypted key }
//	Content        30 { data, 30 { AES-256-CBC, 04 IV }, 80 ciphertext | a0 { 04 part, 04 part ... } }
//
// Go's encoding/asn1 reads DER alone, and libraries for PKCS #7 look for their
// recipient by a certificate, which an enclave's key has none of.
package cms

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
)

// MaxSize is the size of an envelope in bytes. The largest plaintext of KMS has 6
// KiB.
const MaxSize = 64 << 10

const (
	version    = 2 // of both, where the recipient is named by its key's identifier
	keySize    = 32
	maxKeyName = 64
)

var (
	// ErrMalformed reports bytes that are no envelope of the one kind.
	ErrMalformed = errors.New("not an envelope of a key service")
	// ErrNotForThisKey reports an envelope that this key does not open: it is
	// another's, or somebody has changed it. Which, nobody is told.
	ErrNotForThisKey = errors.New("the envelope does not open with this key")
)

// Object identifiers as DER contents: RFC 5652, RFC 8017, RFC 3565, RFC 5754.
var (
	oidData          = []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01}
	oidEnvelopedData = []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x03}
	oidOAEP          = []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x07}
	oidMGF1          = []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08}
	oidPSpecified    = []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x09}
	oidSHA256        = []byte{0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01}
	oidAES256CBC     = []byte{0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x2a}
)

// An Envelope is closed.
type Envelope struct {
	KeyName      []byte // by which the recipient's key is named; nobody says how it is derived
	encryptedKey []byte
	iv           []byte
	ciphertext   []byte
}

// Parse decodes an envelope. Errors match ErrMalformed.
func Parse(b []byte) (*Envelope, error) {
	e, err := parse(b)
	if err != nil {
		return nil, fmt.Errorf("cms: %w: %w", ErrMalformed, err)
	}
	return e, nil
}

func parse(b []byte) (*Envelope, error) {
	if len(b) > MaxSize {
		return nil, fmt.Errorf("%d bytes, the limit is %d", len(b), MaxSize)
	}
	info, rest, err := parseElement(b, 0)
	switch {
	case err != nil:
		return nil, err
	case len(rest) > 0:
		return nil, fmt.Errorf("%d bytes behind it", len(rest))
	}
	parts, err := info.sequence("content info", tagOID, tagContext0)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(parts[0].content, oidEnvelopedData) || len(parts[1].children) != 1 {
		return nil, errors.New("content info: not one EnvelopedData")
	}
	if parts, err = parts[1].children[0].sequence("enveloped data", tagInteger, tagSet, tagSequence); err != nil {
		return nil, err
	}
	if !parts[0].isNumber(version) || len(parts[1].children) != 1 {
		return nil, errors.New("enveloped data: not version 2 with one recipient")
	}
	e := new(Envelope)
	if err := e.parseRecipient(parts[1].children[0]); err != nil {
		return nil, err
	}
	if err := e.parseContent(parts[2]); err != nil {
		return nil, err
	}
	return e, nil
}

// sequence returns the children of a SEQUENCE, which are exactly these.
func (e element) sequence(name string, tags ...byte) ([]element, error) {
	if e.tag != tagSequence {
		return nil, fmt.Errorf("%s: tag %02x is no sequence", name, e.tag)
	}
	if len(e.children) != len(tags) {
		return nil, fmt.Errorf("%s: %d elements instead of %d", name, len(e.children), len(tags))
	}
	for i, tag := range tags {
		if e.children[i].tag != tag {
			return nil, fmt.Errorf("%s: element %d has tag %02x instead of %02x", name, i, e.children[i].tag, tag)
		}
	}
	return e.children, nil
}

func (e element) isNumber(n byte) bool { return bytes.Equal(e.content, []byte{n}) }

func (e *Envelope) parseRecipient(r element) error {
	parts, err := r.sequence("recipient", tagInteger, tagContext0&^constructedBit, tagSequence, tagOctetString)
	if err != nil {
		return err
	}
	e.KeyName, e.encryptedKey = parts[1].content, parts[3].content
	switch {
	case !parts[0].isNumber(version):
		return errors.New("recipient: not version 2")
	case len(e.KeyName) == 0 || len(e.KeyName) > maxKeyName:
		return fmt.Errorf("recipient: key identifier of %d bytes", len(e.KeyName))
	case !isOAEP(parts[2]):
		return errors.New("recipient: not RSAES-OAEP with SHA-256")
	}
	return nil
}

// isOAEP says whether an algorithm is RSAES-OAEP with SHA-256 in both places and
// without a label. What is left out would be SHA-1.
func isOAEP(e element) bool {
	parts, err := e.sequence("", tagOID, tagSequence)
	if err != nil || !bytes.Equal(parts[0].content, oidOAEP) {
		return false
	}
	parameters := parts[1].children
	if len(parameters) == 3 && parameters[2].tag == tagContext2 && hasNoLabel(parameters[2]) {
		parameters = parameters[:2]
	}
	if len(parameters) != 2 || parameters[0].tag != tagContext0 || parameters[1].tag != tagContext1 ||
		len(parameters[0].children) != 1 || len(parameters[1].children) != 1 {
		return false
	}
	mgf, err := parameters[1].children[0].sequence("", tagOID, tagSequence)
	return err == nil && bytes.Equal(mgf[0].content, oidMGF1) && isSHA256(mgf[1]) && isSHA256(parameters[0].children[0])
}

func isSHA256(e element) bool {
	if e.tag != tagSequence || len(e.children) == 0 || e.children[0].tag != tagOID || !bytes.Equal(e.children[0].content, oidSHA256) {
		return false
	}
	switch parameters := e.children[1:]; len(parameters) { // RFC 5754, section 2: both forms are to be taken
	case 0:
		return true
	case 1:
		return parameters[0].tag == tagNull && len(parameters[0].content) == 0
	}
	return false
}

// hasNoLabel says whether the label's source is the default in so many words.
func hasNoLabel(e element) bool {
	if len(e.children) != 1 {
		return false
	}
	parts, err := e.children[0].sequence("", tagOID, tagOctetString)
	return err == nil && bytes.Equal(parts[0].content, oidPSpecified) && len(parts[1].content) == 0
}

func (e *Envelope) parseContent(content element) error {
	if content.tag != tagSequence || len(content.children) != 3 {
		return errors.New("content: not a sequence of three")
	}
	parts := content.children
	algorithm, err := parts[1].sequence("content encryption", tagOID, tagOctetString)
	if err != nil {
		return err
	}
	e.iv = algorithm[1].content
	switch {
	case parts[0].tag != tagOID || !bytes.Equal(parts[0].content, oidData):
		return errors.New("content: not data")
	case !bytes.Equal(algorithm[0].content, oidAES256CBC) || len(e.iv) != aes.BlockSize:
		return errors.New("content encryption: not AES-256-CBC")
	}
	switch c := parts[2]; c.tag {
	case tagContext0 &^ constructedBit:
		e.ciphertext = c.content
	case tagContext0:
		for _, part := range c.children {
			if part.tag != tagOctetString {
				return fmt.Errorf("content: a part has tag %02x", part.tag)
			}
			e.ciphertext = append(e.ciphertext, part.content...)
		}
	default:
		return fmt.Errorf("content: tag %02x", c.tag)
	}
	if len(e.ciphertext) == 0 || len(e.ciphertext)%aes.BlockSize != 0 {
		return fmt.Errorf("content: ciphertext of %d bytes", len(e.ciphertext))
	}
	return nil
}

// Open returns the plaintext. The only error is ErrNotForThisKey.
func (e *Envelope) Open(key *rsa.PrivateKey) ([]byte, error) {
	contentKey, err := rsa.DecryptOAEP(sha256.New(), nil, key, e.encryptedKey, nil)
	if err != nil || len(contentKey) != keySize {
		return nil, ErrNotForThisKey
	}
	block, err := aes.NewCipher(contentKey)
	if err != nil {
		return nil, ErrNotForThisKey
	}
	padded := make([]byte, len(e.ciphertext))
	cipher.NewCBCDecrypter(block, e.iv).CryptBlocks(padded, e.ciphertext)
	return unpad(padded)
}

// unpad takes off the padding of RFC 5652, section 6.3: n bytes of value n.
func unpad(b []byte) ([]byte, error) {
	n := int(b[len(b)-1])
	if n == 0 || n > aes.BlockSize {
		return nil, ErrNotForThisKey
	}
	if subtle.ConstantTimeCompare(b[len(b)-n:], bytes.Repeat([]byte{byte(n)}, n)) != 1 {
		return nil, ErrNotForThisKey
	}
	return b[:len(b)-n], nil
}
