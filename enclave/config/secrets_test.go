package config_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/corridor-enclave/corridor/enclave/config"
)

func TestSecretsMistakes(t *testing.T) {
	t.Parallel()
	for args, wants := range map[string][]string{
		"--secret aGk=":                      {`--secret "aGk=": the ciphertext has 0 bytes`},
		"--secret a/b=aGk=":                  {`--secret "a/b=aGk=": the name is not`},
		"--secret ..=aGk=":                   {`--secret "..=aGk=": the name is not`},
		"--secret a=abc":                     {`--secret "a=abc": the ciphertext is not base64`},
		"--secret a":                         {`--secret "a": not of the form NAME=BASE64`},
		"--secret a=aGk=":                    {`--kms-region: missing`},
		"--kms-region eu/central":            {`--kms-region "eu/central": not a region`},
		"--kms-endpoint http://a":            {`--kms-endpoint "http://a": not a URL of the form https://`},
		"--kms-context a":                    {`--kms-context "a": not of the form KEY=VALUE`},
		"--kms-context a=b --kms-context a=": {`--kms-context "a=": a key is given twice`},
		"--kms-region r --secret a=aGk= --secret a=aGk=":           {`--secret "a=aGk=": a is given twice`},
		"--kms-region r --secret a=aGk= --link off --app-api off":  {`--secret "a=aGk=": the app has nowhere`, `--secret "a=aGk=": there is no way to KMS`},
		"--kms-region r --credentials-port 0 --secret a=" + long(): {`--credentials-port "0": is outside`, `: the ciphertext has 6147 bytes`},
	} {
		_, _, err := config.Parse(config.Production, strings.Fields("--fqdn a "+args), nil)
		for _, want := range wants {
			if err == nil || !strings.Contains(err.Error(), want) || strings.Count(err.Error(), "\n") != len(wants)-1 {
				t.Errorf("%.100s: %v; want %s", args, err, want)
			}
		}
	}
}

// long is the base64 of more than KMS takes.
func long() string { return strings.Repeat("AAAA", 2049) }

func TestSecrets(t *testing.T) {
	t.Parallel()
	args := "--fqdn a --kms-region r --secret a.b=aGk= --kms-context k=v=w --kms-endpoint https://kms --kms-ca /ca --credentials-port 9"
	want := config.Secrets{
		List: []config.Secret{{Name: "a.b", Ciphertext: []byte("hi")}}, Region: "r", Endpoint: "https://kms", CAFile: "/ca",
		Context: map[string]string{"k": "v=w"}, CredentialsPort: 9,
	}
	c, _, err := config.Parse(config.Production, strings.Fields(args), nil)
	if err != nil || !reflect.DeepEqual(c.Secrets, want) {
		t.Errorf("got %+v, %v; want %+v", c.Secrets, err, want)
	}
	// The machine's own network is a way to KMS for a simulation.
	if _, _, err := config.Parse(config.Simulated, strings.Fields(args+" --link off --app-api tcp:127.0.0.1:0"), nil); err != nil {
		t.Error(err)
	}
}
