package config_test

import (
	"strings"
	"testing"

	"github.com/corridor-enclave/corridor/enclave/config"
)

func TestEgressMistakes(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"--socks 127.0.0.1:1080": "--egress-allow: missing",
		"--http-connect 127.0.0.1:3128 --socks 127.0.0.1:3128 --egress-allow *": "--http-connect \"127.0.0.1:3128\": 127.0.0.1:3128 is taken by --socks",
		"--socks 0.0.0.0:1080 --egress-allow *":                                 "not a loopback address",
		"--socks 127.0.0.1:0 --egress-allow *":                                  "port 0",
		"--socks localhost:1080 --egress-allow *":                               "not 127.0.0.1:PORT",
		"--http-connect 3128 --egress-allow *":                                  "not 127.0.0.1:PORT",
		"--egress-allow 127.1:80":                                               "none of *, NAME",
		"--egress-proxy 127.0.0.1:3129 --socks 127.0.0.1:3129 --egress-allow *": "127.0.0.1:3129 is taken by --socks",
		"--egress-suffix a..b":                                                  "not a host name",
		"--egress-road tap":                                                     "neither stream nor link",
		"--egress-port 0":                                                       "outside 1..",
		"--egress-road link --socks 127.0.0.1:1080 --egress-allow * --link off": "there is no link",
	} {
		_, _, err := config.Parse(config.Simulated, strings.Fields("--fqdn a --isolate "+args), nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", args, err, want)
		}
	}
}

// TestEgressForSecrets: KMS is reached by streams where rules let it be, though
// nothing is served to the app.
func TestEgressForSecrets(t *testing.T) {
	t.Parallel()
	const base = "--fqdn a --link off --kms-region r "
	for args, want := range map[string]bool{
		"--secret a=aGk= --egress-allow kms.r.amazonaws.com:443": true,
		"--egress-allow kms.r.amazonaws.com:443":                 false, // nobody asks
	} {
		c, _, err := config.Parse(config.Production, strings.Fields(base+args), nil)
		if err != nil || c.Egress.On() != want || c.Egress.Secrets != want {
			t.Errorf("%s: %+v, %v", args, c.Egress, err)
		}
	}
	c, _, err := config.Parse(config.Production, strings.Fields("--fqdn a --kms-region r --secret a=aGk= --egress-allow * --egress-road link"), nil)
	if err != nil || c.Egress.On() {
		t.Errorf("by the link: %+v, %v", c.Egress, err)
	}
}

func TestEgress(t *testing.T) {
	t.Parallel()
	c, _, err := config.Parse(config.Production, strings.Fields("--fqdn a --socks 127.0.0.1:1080 --egress-allow api.example.com:443 --egress-allow 10.0.0.0/8"), nil)
	if err != nil {
		t.Fatal(err)
	}
	e := c.Egress
	if !e.On() || e.SOCKS != "127.0.0.1:1080" || e.Connect != "" || e.ByLink || e.Port != 1025 ||
		len(e.Policy.Allow) != 2 || e.Policy.Allow[0].String() != "api.example.com:443" {
		t.Errorf("%+v", e)
	}
	if e.Proxy != "" || e.Suffix != "corridor" || e.Roots != "" {
		t.Errorf("%+v", e)
	}
	if c, _, err = config.Parse(config.Production, strings.Fields("--fqdn a"), nil); err != nil || c.Egress.On() {
		t.Errorf("by default %+v, %v", c.Egress, err)
	}
}
