package config

import (
	"errors"
	"net/url"
)

// parseTelemetryPort reads the VSOCK port on which enclaves are heard; 0 is none.
func parseTelemetryPort(v string) (uint32, error) {
	if v == "off" {
		return 0, nil
	}
	return parsePort(v)
}

// parseMetadata takes the address of a service that speaks without TLS, on the
// instance itself.
func parseMetadata(v string) (string, error) {
	u, err := url.Parse(v)
	if err != nil || u.Scheme != "http" || u.Hostname() == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return "", errors.New("not of the form http://HOST[:PORT]")
	}
	return v, nil
}
