package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/corridor-enclave/corridor/tapstack/settings"
)

const (
	// maxCiphertext is the largest that KMS takes, in bytes.
	maxCiphertext = 6144
	// maxSecretName is the length of a secret's name.
	maxSecretName = 64
	// defaultCredentialsPort is beside the ports of the link, streams and events.
	defaultCredentialsPort = "1028"
)

// A Secret is a ciphertext that KMS decrypts for this enclave.
type Secret struct {
	Name       string
	Ciphertext []byte
}

// Secrets are what the app is given, and where KMS is.
type Secrets struct {
	List []Secret // none means that KMS is not asked
	// Region is the KMS key's.
	Region string
	// Endpoint is the URL of KMS; empty means the region's.
	Endpoint string
	// CAFile has the certificates, in PEM, that vouch for the endpoint; empty means
	// the system's.
	CAFile string
	// Context is what all ciphertexts were made with.
	Context map[string]string
	// CredentialsPort is where the parent relays to its metadata service.
	CredentialsPort uint32
}

// A pair is NAME=VALUE.
type pair struct{ name, value string }

// secrets is the part of the declaration that belongs to Secrets.
type secrets struct {
	list                     *[]Secret
	region, endpoint, caFile *string
	context                  *[]pair
	port                     *uint32
}

func (x *secrets) declare(s *settings.Set) {
	x.list = settings.List(s, "secret", "`NAME=BASE64`: a ciphertext of KMS, decrypted before the app starts, for GET /v1/secrets/NAME on the app's API", parseSecret)
	x.region = settings.Var(s, "kms-region", "", "AWS `region` of the secrets' KMS key", parseRegion)
	x.endpoint = settings.Var(s, "kms-endpoint", "", "`URL` of KMS (default the region's)", parseEndpoint)
	x.caFile = settings.Var(s, "kms-ca", "", "`file` with the certificates that vouch for KMS, in PEM (default the system's)", parseText)
	x.context = settings.List(s, "kms-context", "`KEY=VALUE` of the encryption context that the secrets were made with", parsePair)
	x.port = settings.Var(s, "credentials-port", defaultCredentialsPort, "VSOCK `port` on which the parent relays to its instance metadata service", parsePort)
}

func (x *secrets) assemble() Secrets {
	c := Secrets{List: *x.list, Region: *x.region, Endpoint: *x.endpoint, CAFile: *x.caFile, CredentialsPort: *x.port}
	for _, p := range *x.context {
		if c.Context == nil {
			c.Context = make(map[string]string)
		}
		c.Context[p.name] = p.value
	}
	return c
}

// check names what is missing for secrets, if there are any.
func (x *secrets) check(s *settings.Set, c Config, build Build) {
	seen := make(map[string]bool)
	for _, secret := range c.Secrets.List {
		if seen[secret.Name] {
			s.Reject("secret", "%s is given twice", secret.Name)
		}
		seen[secret.Name] = true
	}
	if len(*x.context) != len(c.Secrets.Context) {
		s.Reject("kms-context", "a key is given twice")
	}
	if len(c.Secrets.List) == 0 {
		return
	}
	if c.Secrets.Region == "" && !s.IsSet("kms-region") {
		s.Reject("kms-region", "missing: --secret needs to know where its KMS key is")
	}
	if len(c.AppAPI) == 0 {
		s.Reject("secret", "the app has nowhere to ask for it: give --app-api")
	}
	if !c.Link.On && !c.Egress.On() && build == Production {
		s.Reject("secret", "there is no way to KMS: the link is off, and no --egress-allow lets it out by streams")
	}
}

func parsePair(v string) (pair, error) {
	name, value, ok := strings.Cut(v, "=")
	if !ok || name == "" {
		return pair{}, errors.New("not of the form KEY=VALUE")
	}
	return pair{name, value}, nil
}

func parseSecret(v string) (Secret, error) {
	name, text, ok := strings.Cut(v, "=")
	switch {
	case !ok:
		return Secret{}, errors.New("not of the form NAME=BASE64")
	case !isSecretName(name):
		return Secret{}, fmt.Errorf("the name is not 1 to %d letters, digits, dots, dashes and underscores, the first no dot", maxSecretName)
	}
	ciphertext, err := base64.StdEncoding.Strict().DecodeString(text)
	switch {
	case err != nil:
		return Secret{}, errors.New("the ciphertext is not base64")
	case len(ciphertext) == 0 || len(ciphertext) > maxCiphertext:
		return Secret{}, fmt.Errorf("the ciphertext has %d bytes, allowed are 1 to %d", len(ciphertext), maxCiphertext)
	}
	return Secret{Name: name, Ciphertext: ciphertext}, nil
}

// isSecretName keeps names to what is one segment of a path, however it is written.
func isSecretName(name string) bool {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
	return name != "" && len(name) <= maxSecretName && name[0] != '.' && strings.Trim(name, allowed) == ""
}

// parseRegion accepts what may stand in the name of a host.
func parseRegion(v string) (string, error) {
	const allowed = "abcdefghijklmnopqrstuvwxyz0123456789-"
	if v == "" || len(v) > maxSecretName || strings.Trim(v, allowed) != "" {
		return "", errors.New("not a region, such as eu-central-1")
	}
	return v, nil
}

func parseEndpoint(v string) (string, error) {
	u, err := url.Parse(v)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", errors.New("not a URL of the form https://HOST[:PORT]: nobody would vouch for the answers")
	}
	return v, nil
}
