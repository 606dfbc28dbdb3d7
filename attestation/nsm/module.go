// Package nsm speaks to a Nitro Secure Module: it builds the CBOR requests,
// sends them one after the other, and decodes the answers. It does not judge
// documents; package attestation does, on the other side of the network.
package nsm

import (
	"context"
	"errors"
)

// Sizes that the driver enforces (drivers/misc/nsm.c: NSM_REQUEST_MAX_SIZE,
// NSM_RESPONSE_MAX_SIZE), in bytes.
const (
	MaxRequest = 0x1000
	MaxAnswer  = 0x3000
)

// Sizes of the free fields of a document, in bytes. AWS's text says 512 in one
// place and 1024 in another for user data and nonce; the module takes 1024 but
// verifiers in the field refuse more than 512, so no more is produced.
const (
	MaxNonce     = 512
	MaxUserData  = 512
	MaxPublicKey = 1024
)

// PCRs is the number of platform configuration registers of a module.
const PCRs = 32

// imagePCRs is how many registers, from the first on, measure the image.
const imagePCRs = 3

// A Module exchanges whole CBOR messages with a security module: the device of
// an enclave, or a simulated one in tests and in the simulated enclave.
type Module interface {
	// Send delivers one request of at most MaxRequest bytes and returns the
	// answer of at most MaxAnswer bytes, which the caller owns. A Session never
	// calls it twice at a time. It may ignore the end of ctx where the request
	// cannot be called back; a Session gives up on its own. An error means that
	// no answer came; what the module refuses is an answer, not an error.
	Send(ctx context.Context, request []byte) (answer []byte, err error)
	// Close releases the module. A Send that is under way may finish after it.
	Close() error
}

// Errors of this package; what the module itself refuses is an [ErrorCode].
var (
	// ErrClosed reports a request on a closed Session. Do not retry.
	ErrClosed = errors.New("session is closed")
	// ErrMalformedAnswer reports an answer that is no answer to the request.
	// The next request may succeed; a module that keeps doing it is broken.
	ErrMalformedAnswer = errors.New("malformed answer")
	// ErrInput reports a request that the module would refuse for its size or
	// its index, noticed before it was sent. Do not retry.
	ErrInput = errors.New("request out of range")
	// ErrDebugMode reports an enclave whose console the parent can read: its image
	// measures as zeros. It stays so until the enclave is started anew.
	ErrDebugMode = errors.New("the enclave runs in debug mode")
)

// An ErrorCode is the module's own word for why it refused a request. It is an
// error; test for one with errors.Is(err, nsm.ReadOnlyIndex). A code that is
// not listed here is kept as the module sent it.
type ErrorCode string

// The codes of aws-nitro-enclaves-nsm-api, src/api/mod.rs. All but
// InternalError come again when the same request is sent again.
const (
	Success          ErrorCode = "Success"          // no error, and yet sent as one
	InvalidArgument  ErrorCode = "InvalidArgument"  // an argument is not acceptable
	InvalidIndex     ErrorCode = "InvalidIndex"     // there is no such PCR
	InvalidResponse  ErrorCode = "InvalidResponse"  // the answer is not one to the request
	ReadOnlyIndex    ErrorCode = "ReadOnlyIndex"    // the PCR is locked
	InvalidOperation ErrorCode = "InvalidOperation" // the request is unknown or malformed
	BufferTooSmall   ErrorCode = "BufferTooSmall"   // the answer does not fit
	InputTooLarge    ErrorCode = "InputTooLarge"    // the request or one of its fields is too large
	InternalError    ErrorCode = "InternalError"    // the module failed; retry later
)

// Error returns the code behind the name of its author.
func (c ErrorCode) Error() string { return "the module says " + string(c) }
