package attestationtest

import (
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// Payload is the content of a document, in the order and with the types of the
// real module. Nil slices become null.
type Payload struct {
	ModuleID    string            `cbor:"module_id"`
	Digest      string            `cbor:"digest"`
	Timestamp   uint64            `cbor:"timestamp"` // milliseconds
	PCRs        map[uint16][]byte `cbor:"pcrs"`
	Certificate []byte            `cbor:"certificate"`
	CABundle    [][]byte          `cbor:"cabundle"`
	PublicKey   []byte            `cbor:"public_key"`
	UserData    []byte            `cbor:"user_data"`
	Nonce       []byte            `cbor:"nonce"`
}

// ES384 is the protected header of a genuine document.
func ES384() []byte { return []byte{0xa1, 0x01, 0x38, 0x22} }

// A Message is a COSE_Sign1 message, good or bad, as an array of four.
type Message struct {
	_           struct{} `cbor:",toarray"`
	Protected   any
	Unprotected any
	Payload     any
	Signature   any
}

// SignPayload encodes and signs a payload, which is anything that can be encoded.
func (c *Chain) SignPayload(payload any) ([]byte, error) {
	encoded, err := cbor.Marshal(payload)
	if err != nil {
		return nil, fmt.Errorf("attestationtest: encode payload: %w", err)
	}
	m, err := c.SignMessage(encoded)
	if err != nil {
		return nil, err
	}
	return Encode(m)
}

// SignMessage signs an encoded payload.
func (c *Chain) SignMessage(payload []byte) (Message, error) {
	// Sig_structure, RFC 9052, section 4.4.
	signed, err := cbor.Marshal([]any{"Signature1", ES384(), []byte{}, payload})
	if err != nil {
		return Message{}, fmt.Errorf("attestationtest: encode signed bytes: %w", err)
	}
	signature, err := c.Sign(signed)
	if err != nil {
		return Message{}, err
	}
	return Message{Protected: ES384(), Unprotected: map[int]int{}, Payload: payload, Signature: signature}, nil
}

// Encode returns the CBOR encoding of v.
func Encode(v any) ([]byte, error) {
	b, err := cbor.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("attestationtest: encode: %w", err)
	}
	return b, nil
}
