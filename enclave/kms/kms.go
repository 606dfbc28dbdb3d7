// Package kms asks AWS KMS for plaintexts that nobody but this enclave can read.
// KMS encrypts them to a key that was made here and that an attestation document
// names; whether this enclave may have them, the key's policy says, by the
// document's registers. Credentials only say who pays: the parent has them too. How
// envelopes are opened, attestation/cms knows.
//
//	enclave                             KMS
//	  key pair ─► document{public key} ─► policy of the KMS key: registers equal?
//	  private key ◄─ plaintext ◄────────── envelope to the public key
package kms

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"

	"github.com/corridor-enclave/corridor/attestation/cms"
)

const (
	// keyBits is the size of the key that plaintexts are encrypted to, once each.
	keyBits = 2048
	// requestTimeout bounds one try, credentials and document not counted.
	requestTimeout = 10 * time.Second
	// maxAnswerHeader is the size of a header that KMS may answer with, in bytes.
	maxAnswerHeader = 64 << 10
	// MaxRandom is how many bytes KMS gives at a time.
	MaxRandom = 1024
)

// ErrRefused reports that KMS has understood and said no: the policy does not allow
// it, the ciphertext is another key's, or the request is wrong. To ask again is of
// no use.
var ErrRefused = errors.New("KMS refuses")

// ErrNotSealed reports an answer that is not encrypted to this enclave. It was
// sent by something that is no KMS, or that does not know enclaves.
var ErrNotSealed = errors.New("the answer is not encrypted to this enclave")

// A DialFunc opens connections, as net.Dialer.DialContext does.
type DialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// Config is what a Client needs.
type Config struct {
	// Region is where the keys are: eu-central-1.
	Region string
	// Endpoint is the URL to use instead of the region's; empty means that one.
	Endpoint string
	// Roots are whom to trust for the name of the endpoint; nil means the system's.
	// An envelope does not say who has made it: TLS does.
	Roots *x509.CertPool
	// Credentials sign requests.
	Credentials aws.CredentialsProvider
	// Attest makes a document with the public key, in DER (SubjectPublicKeyInfo).
	Attest func(ctx context.Context, publicKey []byte) (document []byte, err error)
	// DialContext opens connections; nil means net.Dialer's.
	DialContext DialFunc
}

// A Client asks KMS. It is safe for concurrent use.
type Client struct {
	cfg       Config
	key       *rsa.PrivateKey
	publicKey []byte
	kms       *kms.Client
	transport *http.Transport
}

// New makes the key pair, and asks nobody anything yet.
func New(cfg Config) (*Client, error) {
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return nil, fmt.Errorf("kms: making a key: %w", err)
	}
	publicKey, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("kms: encoding the key: %w", err)
	}
	if cfg.DialContext == nil {
		cfg.DialContext = new(net.Dialer).DialContext
	}
	c := &Client{cfg: cfg, key: key, publicKey: publicKey}
	c.transport = &http.Transport{ // no proxy: nobody's environment decides where this goes
		DialContext:            cfg.DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: cfg.Roots, MinVersion: tls.VersionTLS12},
		MaxResponseHeaderBytes: maxAnswerHeader,
	}
	options := kms.Options{
		Region:      cfg.Region,
		Credentials: aws.NewCredentialsCache(cfg.Credentials),
		HTTPClient: &http.Client{Transport: c.transport, Timeout: requestTimeout, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // to somebody else's name, perhaps
		}},
	}
	if cfg.Endpoint != "" {
		options.BaseEndpoint = &cfg.Endpoint
	}
	c.kms = kms.New(options)
	return c, nil
}

// Close drops idle connections.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// recipient is a document for one request.
func (c *Client) recipient(ctx context.Context) (*types.RecipientInfo, error) {
	document, err := c.cfg.Attest(ctx, c.publicKey)
	if err != nil {
		return nil, fmt.Errorf("kms: %w", err)
	}
	return &types.RecipientInfo{
		AttestationDocument:    document,
		KeyEncryptionAlgorithm: types.KeyEncryptionMechanismRsaesOaepSha256,
	}, nil
}

// Decrypt returns the plaintext of a ciphertext that KMS has made. The encryption
// context is what it was made with, nil if there was none. Errors match ErrRefused,
// ErrNotSealed, cms.ErrMalformed or cms.ErrNotForThisKey; after others asking again
// may help.
func (c *Client) Decrypt(ctx context.Context, ciphertext []byte, encryptionContext map[string]string) ([]byte, error) {
	recipient, err := c.recipient(ctx)
	if err != nil {
		return nil, err
	}
	answer, err := c.kms.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: ciphertext, EncryptionContext: encryptionContext, Recipient: recipient})
	if err != nil {
		return nil, explain(err)
	}
	return c.open(answer.CiphertextForRecipient, answer.Plaintext)
}

// A DataKey is a key of 32 bytes, and what KMS will make it from again.
type DataKey struct {
	Plaintext  []byte
	Ciphertext []byte // for Decrypt
}

// GenerateDataKey returns a new key below the KMS key of that identifier. Errors are
// those of Decrypt.
func (c *Client) GenerateDataKey(ctx context.Context, keyID string, encryptionContext map[string]string) (DataKey, error) {
	recipient, err := c.recipient(ctx)
	if err != nil {
		return DataKey{}, err
	}
	answer, err := c.kms.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{
		KeyId: &keyID, KeySpec: types.DataKeySpecAes256, EncryptionContext: encryptionContext, Recipient: recipient,
	})
	if err != nil {
		return DataKey{}, explain(err)
	}
	plaintext, err := c.open(answer.CiphertextForRecipient, answer.Plaintext)
	if err != nil {
		return DataKey{}, err
	}
	return DataKey{Plaintext: plaintext, Ciphertext: answer.CiphertextBlob}, nil
}

// GenerateRandom returns n random bytes of KMS's, 1 to MaxRandom. Errors are those
// of Decrypt.
func (c *Client) GenerateRandom(ctx context.Context, n int) ([]byte, error) {
	if n < 1 || n > MaxRandom {
		return nil, fmt.Errorf("kms: %d random bytes: there are 1 to %d", n, MaxRandom)
	}
	recipient, err := c.recipient(ctx)
	if err != nil {
		return nil, err
	}
	answer, err := c.kms.GenerateRandom(ctx, &kms.GenerateRandomInput{NumberOfBytes: aws.Int32(int32(n)), Recipient: recipient})
	if err != nil {
		return nil, explain(err)
	}
	return c.open(answer.CiphertextForRecipient, answer.Plaintext)
}

// open insists that the answer was for this enclave alone.
func (c *Client) open(sealed, plaintext []byte) ([]byte, error) {
	if len(sealed) == 0 || len(plaintext) > 0 {
		return nil, fmt.Errorf("kms: %w", ErrNotSealed)
	}
	envelope, err := cms.Parse(sealed)
	if err != nil {
		return nil, fmt.Errorf("kms: %w", err)
	}
	opened, err := envelope.Open(c.key)
	if err != nil {
		return nil, fmt.Errorf("kms: %w", err)
	}
	return opened, nil
}

// explain sorts the errors of the SDK: those that stay from those that may pass.
func explain(err error) error {
	var said smithy.APIError
	if errors.As(err, &said) && !passes(said.ErrorCode()) {
		return fmt.Errorf("kms: %w: %s: %.200q", ErrRefused, said.ErrorCode(), said.ErrorMessage())
	}
	return fmt.Errorf("kms: %w", err)
}

// passes says whether another try may go well.
func passes(code string) bool {
	switch code {
	case "ThrottlingException", "DependencyTimeoutException", "KMSInternalException", "KeyUnavailableException",
		"ServiceUnavailableException", "ServiceUnavailable", "InternalFailure", "RequestExpired", "ExpiredTokenException", "UnknownError":
		return true
	}
	return false
}
