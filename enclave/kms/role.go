package kms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

const (
	// metadataHost is the instance metadata service's name for itself. Nobody dials
	// it: connections come from elsewhere.
	metadataHost = "169.254.169.254"
	tokenPath    = "/latest/api/token"
	rolePath     = "/latest/meta-data/iam/security-credentials/"
	tokenSeconds = "60"
	roleTimeout  = 5 * time.Second
	maxMetadata  = 64 << 10
)

// errMetadata reports an answer of the metadata service that is of no use.
var errMetadata = errors.New("instance metadata")

// An InstanceRole gets the credentials of the parent instance's role from its
// metadata service, version 2, over connections that somebody on the parent relays
// there. They are no secret from the parent, and need none: what they are good for,
// a KMS key's policy may bind to the enclave.
type InstanceRole struct{ client http.Client }

var _ aws.CredentialsProvider = (*InstanceRole)(nil)

// NewInstanceRole returns the role that connections of dial lead to.
func NewInstanceRole(dial func(ctx context.Context) (net.Conn, error)) *InstanceRole {
	return &InstanceRole{client: http.Client{Timeout: roleTimeout, Transport: &http.Transport{
		DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: maxMetadata,
	}}}
}

// Retrieve asks for the credentials that are valid now.
func (r *InstanceRole) Retrieve(ctx context.Context) (aws.Credentials, error) {
	c, err := r.retrieve(ctx)
	if err != nil {
		return aws.Credentials{}, fmt.Errorf("kms: credentials: %w", err)
	}
	return c, nil
}

func (r *InstanceRole) retrieve(ctx context.Context) (aws.Credentials, error) {
	token, err := r.ask(ctx, http.MethodPut, tokenPath, "X-Aws-Ec2-Metadata-Token-Ttl-Seconds", tokenSeconds)
	if err != nil {
		return aws.Credentials{}, err
	}
	roles, err := r.ask(ctx, http.MethodGet, rolePath, "X-Aws-Ec2-Metadata-Token", token)
	if err != nil {
		return aws.Credentials{}, err
	}
	role, _, _ := strings.Cut(roles, "\n")
	if role == "" || strings.ContainsAny(role, "/?#%") {
		return aws.Credentials{}, fmt.Errorf("%w: %.64q is no role", errMetadata, role)
	}
	text, err := r.ask(ctx, http.MethodGet, rolePath+role, "X-Aws-Ec2-Metadata-Token", token)
	if err != nil {
		return aws.Credentials{}, err
	}
	return parseCredentials(text)
}

func parseCredentials(text string) (aws.Credentials, error) {
	var said struct {
		Code, AccessKeyId, SecretAccessKey, Token string //nolint:revive // as the service spells it
		Expiration                                time.Time
	}
	if err := json.Unmarshal([]byte(text), &said); err != nil {
		return aws.Credentials{}, fmt.Errorf("%w: not the JSON of credentials", errMetadata)
	}
	if said.Code != "Success" || said.AccessKeyId == "" || said.SecretAccessKey == "" || said.Expiration.IsZero() {
		return aws.Credentials{}, fmt.Errorf("%w: no credentials, code %.64q", errMetadata, said.Code)
	}
	return aws.Credentials{
		AccessKeyID: said.AccessKeyId, SecretAccessKey: said.SecretAccessKey, SessionToken: said.Token,
		CanExpire: true, Expires: said.Expiration, Source: "instance role",
	}, nil
}

func (r *InstanceRole) ask(ctx context.Context, method, path, header, value string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://"+metadataHost+path, nil)
	if err != nil {
		return "", err
	}
	request.Header.Set(header, value)
	answer, err := r.client.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxMetadata))
	if err != nil {
		return "", err
	}
	if answer.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%w: %s answers %d", errMetadata, path, answer.StatusCode)
	}
	return strings.TrimSpace(string(text)), nil
}
