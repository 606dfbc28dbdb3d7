package upstream

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// check makes sure that a request is one request on the wire, whoever made it.
func check(req *http.Request) error {
	if !token(req.Method) {
		return fmt.Errorf("upstream: %q is not a method", req.Method)
	}
	if t := target(req); t == "" || !visible(t) {
		return fmt.Errorf("upstream: %q is not a target", t)
	}
	if h := host(req); !visible(h) {
		return fmt.Errorf("upstream: %q is not a host", h)
	}
	for name, values := range req.Header {
		for _, value := range values {
			if err := checkField(name, value); err != nil {
				return err
			}
		}
	}
	for name := range req.Trailer {
		if !token(name) {
			return fmt.Errorf("upstream: %q is not a field name", name)
		}
	}
	return nil
}

// checkField refuses what would end a field before its end (RFC 9110 section 5.5).
func checkField(name, value string) error {
	if !token(name) {
		return fmt.Errorf("upstream: %q is not a field name", name)
	}
	if strings.ContainsAny(value, "\r\n\x00") {
		return errors.New("upstream: field " + name + " has a line break or NUL in it")
	}
	return nil
}

// visible reports whether there are neither spaces nor control characters.
func visible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

// token reports whether s is a token (RFC 9110 section 5.6.2).
func token(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return s != ""
}
