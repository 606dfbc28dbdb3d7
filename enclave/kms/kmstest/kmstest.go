// Package kmstest answers as AWS KMS does to enclaves, on this machine, for tests:
// it checks the attestation document of each request and encrypts to its key. It
// keeps no keys: what it decrypts, it has been told.
package kmstest

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/attestation"
	"github.com/corridor-enclave/corridor/attestation/cms/cmstest"
)

// The one role, and its credentials.
const (
	Role        = "enclave-role"
	AccessKeyID = "AKIDTEST"
	token       = "metadata-token"
)

// A Service is KMS, and the metadata service beside it, until its test ends.
type Service struct {
	URL string // of KMS, https
	CA  []byte // PEM, that vouches for it
	// Lie, if it is set before the first request, changes the answers.
	Lie func(answer map[string]any)
	// Metadata answers as the instance metadata service.
	Metadata http.Handler

	verifier attestation.Verifier
	policy   *attestation.Policy

	mu      sync.Mutex
	secrets map[string]secret // by ciphertext
	fail    []string          // codes to answer the next requests with
	asked   int
}

type secret struct {
	plaintext []byte
	context   map[string]string
}

// New starts a service whose keys' policies accept documents below the root, in PEM,
// and of the policy.
func New(t testing.TB, rootPEM []byte, policy *attestation.Policy) *Service {
	t.Helper()
	roots, err := attestation.ParseRoots(rootPEM)
	if err != nil {
		t.Fatal(err)
	}
	s := &Service{policy: policy, verifier: attestation.Verifier{Roots: roots}, secrets: make(map[string]secret)}
	server := httptest.NewTLSServer(s)
	t.Cleanup(server.Close)
	s.URL = server.URL
	s.CA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	s.Metadata = http.HandlerFunc(metadata)
	return s
}

// Encrypt returns a ciphertext that Decrypt knows.
func (s *Service) Encrypt(plaintext string, context map[string]string) []byte {
	ciphertext := make([]byte, 32)
	rand.Read(ciphertext) // never fails: it ends the program rather than return
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets[string(ciphertext)] = secret{[]byte(plaintext), context}
	return ciphertext
}

// Fail has the next requests answered with these error codes.
func (s *Service) Fail(codes ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = append(s.fail, codes...)
}

// Asked is the number of requests.
func (s *Service) Asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// nextFailure counts the request.
func (s *Service) nextFailure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if len(s.fail) == 0 {
		return nil
	}
	code := s.fail[0]
	s.fail = s.fail[1:]
	return refused(code)
}

// refused is an error of the service, by its code.
type refused string

func (r refused) Error() string { return string(r) }

type request struct {
	CiphertextBlob    []byte
	EncryptionContext map[string]string
	KeyId, KeySpec    string //nolint:revive // as the service spells it
	NumberOfBytes     int
	Recipient         *struct {
		AttestationDocument    []byte
		KeyEncryptionAlgorithm string
	}
}

// ServeHTTP speaks AWS's JSON protocol, version 1.1.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	answer, err := s.answer(r)
	if err != nil {
		var code refused
		if !errors.As(err, &code) {
			code = "ValidationException"
		}
		w.WriteHeader(http.StatusBadRequest)
		answer = map[string]any{"__type": string(code), "message": err.Error()}
	} else if s.Lie != nil {
		s.Lie(answer)
	}
	_ = json.NewEncoder(w).Encode(answer) // an error means that the client is gone
}

func (s *Service) answer(r *http.Request) (map[string]any, error) {
	if err := s.nextFailure(); err != nil {
		return nil, err
	}
	if auth := r.Header.Get("Authorization"); r.Method != http.MethodPost || !strings.HasPrefix(auth, "AWS4-HMAC-SHA256 Credential="+AccessKeyID+"/") {
		return nil, fmt.Errorf("%w: authorization %q", refused("UnrecognizedClientException"), auth)
	}
	var q request
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&q); err != nil {
		return nil, err
	}
	key, err := s.recipient(q)
	if err != nil {
		return nil, err
	}
	var plaintext []byte
	answer := map[string]any{"Plaintext": nil}
	switch target := r.Header.Get("X-Amz-Target"); target {
	case "TrentService.Decrypt":
		if plaintext, err = s.decrypt(q); err != nil {
			return nil, err
		}
	case "TrentService.GenerateDataKey":
		plaintext = make([]byte, 32)
		rand.Read(plaintext)
		answer["CiphertextBlob"], answer["KeyId"] = s.Encrypt(string(plaintext), q.EncryptionContext), q.KeyId
	case "TrentService.GenerateRandom":
		plaintext = make([]byte, q.NumberOfBytes)
		rand.Read(plaintext)
	default:
		return nil, fmt.Errorf("%w: %q", refused("UnknownOperationException"), target)
	}
	if answer["CiphertextForRecipient"], err = cmstest.Seal(key, plaintext, 16); err != nil {
		return nil, err
	}
	return answer, nil
}

// recipient returns the key of a document that the policy accepts, made for key
// services.
func (s *Service) recipient(q request) (*rsa.PublicKey, error) {
	if q.Recipient == nil || q.Recipient.KeyEncryptionAlgorithm != "RSAES_OAEP_SHA_256" {
		return nil, errors.New("no recipient, or another algorithm")
	}
	d, err := s.verifier.Verify(q.Recipient.AttestationDocument)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", refused("AccessDeniedException"), err)
	}
	if _, err := s.policy.Check(d, time.Now()); err != nil {
		return nil, fmt.Errorf("%w: %w", refused("AccessDeniedException"), err)
	}
	if statement, err := attestation.ParseStatement(d.UserData); err != nil || statement.Purpose != attestation.PurposeKMS {
		return nil, fmt.Errorf("%w: the document is for something else: %w", refused("AccessDeniedException"), err)
	}
	key, err := x509.ParsePKIXPublicKey(d.PublicKey)
	if err != nil {
		return nil, err
	}
	if key, ok := key.(*rsa.PublicKey); ok {
		return key, nil
	}
	return nil, errors.New("the key is not RSA")
}

func (s *Service) decrypt(q request) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, ok := s.secrets[string(q.CiphertextBlob)]
	if !ok || !maps.Equal(known.context, q.EncryptionContext) {
		return nil, refused("InvalidCiphertextException")
	}
	return known.plaintext, nil
}

// metadata is the part of the instance metadata service that tells of the role.
func metadata(w http.ResponseWriter, r *http.Request) {
	const roles = "/latest/meta-data/iam/security-credentials/"
	switch {
	case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token" && r.Header.Get("X-Aws-Ec2-Metadata-Token-Ttl-Seconds") != "":
		_, _ = io.WriteString(w, token)
	case r.Method != http.MethodGet || r.Header.Get("X-Aws-Ec2-Metadata-Token") != token:
		http.Error(w, "no token", http.StatusUnauthorized)
	case r.URL.Path == roles:
		_, _ = io.WriteString(w, Role)
	case r.URL.Path == roles+Role:
		_ = json.NewEncoder(w).Encode(map[string]any{
			"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": AccessKeyID, "SecretAccessKey": "secret", "Token": "session",
			"Expiration": time.Now().Add(time.Hour).UTC().Format(time.RFC3339),
		})
	default:
		http.NotFound(w, r)
	}
}

// ServeMetadata answers on the listener as the instance metadata service, until the
// test ends.
func (s *Service) ServeMetadata(t testing.TB, l net.Listener) {
	t.Helper()
	server := httptest.NewUnstartedServer(s.Metadata)
	if err := server.Listener.Close(); err != nil {
		t.Fatal(err)
	}
	server.Listener = l
	server.Start()
	t.Cleanup(server.Close)
}
