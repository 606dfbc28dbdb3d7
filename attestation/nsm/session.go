package nsm

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"
)

// RequestTimeout is how long a Session waits for its turn and the answer
// together, unless the caller's context ends before. A module needs about a
// millisecond; the driver itself gives up after 120 s.
const RequestTimeout = 10 * time.Second

// A Session sends requests to a module one at a time, which is what the device
// does anyhow, and lets every caller give up waiting. It is safe for concurrent
// use. It owns its module.
type Session struct {
	module Module
	// turn holds a token while a request is with the module, also when the
	// caller has given up on it: so at most one is ever left behind.
	turn   chan struct{}
	closed chan struct{}
	once   sync.Once
}

// NewSession returns a session that owns m.
func NewSession(m Module) *Session {
	return &Session{module: m, turn: make(chan struct{}, 1), closed: make(chan struct{})}
}

// Close releases the module and lets all further requests fail with ErrClosed.
// It does not wait for a request that the module still holds.
func (s *Session) Close() error {
	var err error
	s.once.Do(func() {
		close(s.closed)
		err = s.module.Close()
	})
	if err != nil {
		return fmt.Errorf("nsm: close: %w", err)
	}
	return nil
}

type reply struct {
	answer []byte
	err    error
}

// send exchanges one message. Its errors are an ErrorCode where the module
// refused, context.DeadlineExceeded or context.Canceled where no answer came in
// time, ErrClosed, ErrInput, ErrMalformedAnswer, or the module's own.
func (s *Session) send(ctx context.Context, name string, request, fields any) error {
	err := s.exchange(ctx, name, request, fields)
	if err != nil {
		return fmt.Errorf("nsm: %s: %w", name, err)
	}
	return nil
}

func (s *Session) exchange(ctx context.Context, name string, request, fields any) error {
	message, err := encodeRequest(name, request)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, RequestTimeout)
	defer cancel()
	if err := s.takeTurn(ctx); err != nil {
		return err
	}
	replies := make(chan reply, 1) // room for one, so that nobody has to listen
	go func() {
		answer, err := s.module.Send(ctx, message)
		<-s.turn
		replies <- reply{answer, err}
	}()
	select {
	case r := <-replies:
		if r.err != nil {
			return r.err
		}
		return decodeAnswer(name, r.answer, fields)
	case <-ctx.Done():
		return fmt.Errorf("no answer: %w", ctx.Err())
	}
}

func (s *Session) takeTurn(ctx context.Context) error {
	select {
	case <-s.closed:
		return ErrClosed
	default:
	}
	select {
	case <-s.closed:
		return ErrClosed
	case <-ctx.Done():
		return fmt.Errorf("the module is busy: %w", ctx.Err())
	case s.turn <- struct{}{}:
		return nil
	}
}

// A Description is what a module says of itself.
type Description struct {
	VersionMajor uint16   `cbor:"version_major"`
	VersionMinor uint16   `cbor:"version_minor"`
	VersionPatch uint16   `cbor:"version_patch"`
	ModuleID     string   `cbor:"module_id"` // i-INSTANCE-encENCLAVE
	MaxPCRs      uint16   `cbor:"max_pcrs"`
	LockedPCRs   []uint16 `cbor:"locked_pcrs"`
	Digest       string   `cbor:"digest"` // SHA384
}

// Describe asks the module what it is.
func (s *Session) Describe(ctx context.Context) (Description, error) {
	var d Description
	if err := s.send(ctx, describeNSM, nil, &d); err != nil {
		return Description{}, err
	}
	if d.ModuleID == "" || d.MaxPCRs == 0 {
		return Description{}, fmt.Errorf("nsm: %s: %w: module_id or max_pcrs is missing", describeNSM, ErrMalformedAnswer)
	}
	return d, nil
}

// A PCR is the state of one platform configuration register.
type PCR struct {
	Locked bool   // it cannot be extended any more, and documents carry it
	Value  []byte // 48 bytes, SHA-384
}

// DescribePCR reads the register of the given index.
func (s *Session) DescribePCR(ctx context.Context, index uint16) (PCR, error) {
	var a describePCRAnswer
	if err := s.send(ctx, describePCR, indexFields{index}, &a); err != nil {
		return PCR{}, err
	}
	if a.Lock == nil || len(a.Data) == 0 {
		return PCR{}, fmt.Errorf("nsm: %s: %w: lock or data is missing", describePCR, ErrMalformedAnswer)
	}
	return PCR{Locked: *a.Lock, Value: a.Data}, nil
}

// CheckMeasured asks a module that nobody uses yet whether documents about this
// enclave can convince anybody. It fails with ErrDebugMode where they cannot. The
// module stays the caller's.
func CheckMeasured(ctx context.Context, m Module) error {
	s := NewSession(m) // never closed: that would close the module
	for i := range uint16(imagePCRs) {
		pcr, err := s.DescribePCR(ctx, i)
		if err != nil {
			return err
		}
		if len(bytes.Trim(pcr.Value, "\x00")) == 0 {
			return fmt.Errorf("nsm: PCR%d is zero: %w", i, ErrDebugMode)
		}
	}
	return nil
}

// ExtendPCR sets the register to SHA-384 of its value followed by data, and
// returns the new value. A locked register is refused with ReadOnlyIndex.
func (s *Session) ExtendPCR(ctx context.Context, index uint16, data []byte) ([]byte, error) {
	if data == nil {
		data = []byte{} // null is not data
	}
	var a dataAnswer
	if err := s.send(ctx, extendPCR, extendFields{index, data}, &a); err != nil {
		return nil, err
	}
	if len(a.Data) == 0 {
		return nil, fmt.Errorf("nsm: %s: %w: data is missing", extendPCR, ErrMalformedAnswer)
	}
	return a.Data, nil
}

// LockPCR makes one register read-only until the enclave ends. Locking it again
// is refused with ReadOnlyIndex.
func (s *Session) LockPCR(ctx context.Context, index uint16) error {
	return s.send(ctx, lockPCR, indexFields{index}, nil)
}

// LockPCRs makes the registers 0 to n-1 read-only, also those that are already.
func (s *Session) LockPCRs(ctx context.Context, n uint16) error {
	return s.send(ctx, lockPCRs, rangeFields{n}, nil)
}

// GetRandom returns random bytes from the module: 256 as a rule, never none.
func (s *Session) GetRandom(ctx context.Context) ([]byte, error) {
	var a randomAnswer
	if err := s.send(ctx, getRandom, nil, &a); err != nil {
		return nil, err
	}
	if len(a.Random) == 0 {
		return nil, fmt.Errorf("nsm: %s: %w: no bytes", getRandom, ErrMalformedAnswer)
	}
	return a.Random, nil
}

// An AttestationRequest holds what the document shall carry for the caller. A
// nil field is left out of the document.
type AttestationRequest struct {
	Nonce     []byte // at most MaxNonce bytes
	UserData  []byte // at most MaxUserData bytes
	PublicKey []byte // 1 to MaxPublicKey bytes
}

func (r AttestationRequest) check() error {
	switch {
	case len(r.Nonce) > MaxNonce:
		return fmt.Errorf("%w: nonce of %d bytes, the limit is %d", ErrInput, len(r.Nonce), MaxNonce)
	case len(r.UserData) > MaxUserData:
		return fmt.Errorf("%w: user data of %d bytes, the limit is %d", ErrInput, len(r.UserData), MaxUserData)
	case len(r.PublicKey) > MaxPublicKey:
		return fmt.Errorf("%w: public key of %d bytes, the limit is %d", ErrInput, len(r.PublicKey), MaxPublicKey)
	case r.PublicKey != nil && len(r.PublicKey) == 0:
		return fmt.Errorf("%w: empty public key (leave it nil)", ErrInput)
	}
	return nil
}

// Attest asks for a document: a signed statement of the module about the
// enclave and the request. The bytes are a COSE_Sign1 message that package
// attestation verifies; here they are not looked at.
func (s *Session) Attest(ctx context.Context, r AttestationRequest) ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("nsm: %s: %w", attestation, err)
	}
	var a documentAnswer
	fields := attestationFields{UserData: r.UserData, Nonce: r.Nonce, PublicKey: r.PublicKey}
	if err := s.send(ctx, attestation, fields, &a); err != nil {
		return nil, err
	}
	if len(a.Document) == 0 {
		return nil, fmt.Errorf("nsm: %s: %w: no document", attestation, ErrMalformedAnswer)
	}
	return a.Document, nil
}
