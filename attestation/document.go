package attestation

import (
	"crypto/sha512"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// Limits of the fields of a payload, in bytes unless said otherwise (nsm-api,
// docs/attestation_process.md, sections 2.2 and 3.2.3.1).
const (
	PCRSize        = 48 // SHA-384
	MaxPCRs        = 32 // registers
	maxModuleID    = 256
	maxCertificate = 1024
	maxBundle      = 8    // certificates; AWS sends four
	maxField       = 1024 // public_key, user_data and nonce
)

// Measure returns the register that was zero and has measured the parts, one
// behind the other: SHA-384 of 48 zeros and the parts' SHA-384. So images, their
// signers (the certificate in DER) and configurations are measured.
func Measure(parts ...[]byte) []byte {
	content := sha512.New384()
	for _, p := range parts {
		content.Write(p)
	}
	register := sha512.New384()
	register.Write(make([]byte, PCRSize))
	register.Write(content.Sum(nil))
	return register.Sum(nil)
}

// Claims is the content of a document: what the module says, whoever it is.
type Claims struct {
	ModuleID    string         // instance and enclave: i-...-enc...
	Timestamp   time.Time      // when the module made the document, UTC, milliseconds
	PCRs        map[int][]byte // locked registers by index, PCRSize bytes each
	Certificate []byte         // DER, of the key that signs
	CABundle    [][]byte       // DER, root first; the first is never trusted
	PublicKey   []byte         // nil if absent
	UserData    []byte         // nil if absent
	Nonce       []byte         // nil if absent
}

// A Document holds claims that a module below a trusted root has signed. Only
// Verifier.Verify makes one.
type Document struct {
	Claims
	Chain []*x509.Certificate // leaf first, trusted root last
}

// Unverified holds claims that anybody may have written. It is a type of its
// own so that it cannot be handed to a policy by mistake.
type Unverified struct {
	Claims
	payload   []byte
	signature []byte
}

// payload mirrors the map inside the message. A field that is missing is caught
// below by its length, which null and absence share; only the last three may be
// missing.
type payload struct {
	ModuleID    string            `cbor:"module_id"`
	Digest      string            `cbor:"digest"`
	Timestamp   unsigned          `cbor:"timestamp"`
	PCRs        map[uint64]octets `cbor:"pcrs"`
	Certificate octets            `cbor:"certificate"`
	CABundle    []octets          `cbor:"cabundle"`
	PublicKey   octets            `cbor:"public_key"`
	UserData    octets            `cbor:"user_data"`
	Nonce       octets            `cbor:"nonce"`
}

// unsigned is a CBOR unsigned integer; the decoder alone would also take a
// floating-point number without fraction.
type unsigned uint64

// UnmarshalCBOR is called by the decoder with one well-formed item.
func (u *unsigned) UnmarshalCBOR(item []byte) error {
	if len(item) == 0 || item[0]>>5 != 0 {
		return errors.New("not an unsigned integer")
	}
	return strict.Unmarshal(item, (*uint64)(u))
}

// Parse decodes a document and checks its structure and all its lengths, but
// neither its signature nor its certificates. Use it to look at a document that
// is not trusted; everything else goes through Verifier.Verify. Errors match
// ErrNotGenuine.
func Parse(raw []byte) (*Unverified, error) {
	message, err := parseSign1(raw)
	if err != nil {
		return nil, refuse(ErrNotGenuine, StepDocument, "%v", err)
	}
	var p payload
	if err := strict.Unmarshal(message.Payload, &p); err != nil {
		return nil, refuse(ErrNotGenuine, StepDocument, "payload: %v", err)
	}
	if err := p.check(); err != nil {
		return nil, refuse(ErrNotGenuine, StepDocument, "payload: %v", err)
	}
	return &Unverified{Claims: p.claims(), payload: message.Payload, signature: message.Signature}, nil
}

func (p *payload) check() error {
	// The year 9999: later times cannot be printed as RFC 3339.
	const latest = 253402300799999
	switch {
	case p.ModuleID == "" || len(p.ModuleID) > maxModuleID || !printable(p.ModuleID):
		return fmt.Errorf("module_id of %d bytes, allowed are 1 to %d, printable", len(p.ModuleID), maxModuleID)
	case p.Digest != "SHA384":
		return fmt.Errorf("digest %.16q is not SHA384", p.Digest)
	case p.Timestamp == 0 || p.Timestamp > latest:
		return fmt.Errorf("timestamp %d is missing or out of range", uint64(p.Timestamp))
	case len(p.Certificate) == 0 || len(p.Certificate) > maxCertificate:
		return fmt.Errorf("certificate of %d bytes, allowed are 1 to %d", len(p.Certificate), maxCertificate)
	case p.PublicKey != nil && len(p.PublicKey) == 0:
		return errors.New("public_key is empty")
	case len(p.PublicKey) > maxField:
		return fmt.Errorf("public_key of %d bytes, the limit is %d", len(p.PublicKey), maxField)
	case len(p.UserData) > maxField:
		return fmt.Errorf("user_data of %d bytes, the limit is %d", len(p.UserData), maxField)
	case len(p.Nonce) > maxField:
		return fmt.Errorf("nonce of %d bytes, the limit is %d", len(p.Nonce), maxField)
	}
	if err := p.checkPCRs(); err != nil {
		return err
	}
	return p.checkBundle()
}

func (p *payload) checkPCRs() error {
	if len(p.PCRs) == 0 {
		return errors.New("pcrs are missing")
	}
	for i, value := range p.PCRs {
		if i >= MaxPCRs {
			return fmt.Errorf("pcrs has index %d, the last is %d", i, MaxPCRs-1)
		}
		if len(value) != PCRSize {
			return fmt.Errorf("pcrs[%d] of %d bytes instead of %d", i, len(value), PCRSize)
		}
	}
	return nil
}

func (p *payload) checkBundle() error {
	if len(p.CABundle) == 0 || len(p.CABundle) > maxBundle {
		return fmt.Errorf("cabundle of %d certificates, allowed are 1 to %d", len(p.CABundle), maxBundle)
	}
	for i, der := range p.CABundle {
		if len(der) == 0 || len(der) > maxCertificate {
			return fmt.Errorf("cabundle[%d] of %d bytes, allowed are 1 to %d", i, len(der), maxCertificate)
		}
	}
	return nil
}

// printable keeps control characters away from terminals and logs.
func printable(s string) bool {
	for _, r := range s {
		if r < ' ' || r > '~' {
			return false
		}
	}
	return true
}

func (p *payload) claims() Claims {
	c := Claims{
		ModuleID:    p.ModuleID,
		Timestamp:   time.UnixMilli(int64(p.Timestamp)).UTC(),
		PCRs:        make(map[int][]byte, len(p.PCRs)),
		Certificate: p.Certificate,
		CABundle:    make([][]byte, len(p.CABundle)),
		PublicKey:   p.PublicKey,
		UserData:    p.UserData,
		Nonce:       p.Nonce,
	}
	for i, value := range p.PCRs {
		c.PCRs[int(i)] = value
	}
	for i, der := range p.CABundle {
		c.CABundle[i] = der
	}
	return c
}
