package route

import (
	"bytes"
	"fmt"
	"strings"
)

// preface begins HTTP/2 without TLS (RFC 9113, section 3.4). Whom it wants to
// reach is compressed behind it, and differs from request to request.
const preface = "PRI * HTTP/2.0\r\n"

// requestHost returns the host that an HTTP/1 request is for, empty if it names
// none, or not ok if its head is not complete. An absolute target is stronger
// than the header (RFC 9112, section 3.2.2). Only the first request of a
// connection is looked at.
func requestHost(said []byte) (host string, ok bool, err error) {
	if !likeMethod(said) {
		return "", false, fmt.Errorf("%w: neither TLS nor HTTP", ErrNoName)
	}
	if bytes.HasPrefix(said, []byte(preface)) {
		return "", true, nil
	}
	head, _, complete := bytes.Cut(said, []byte("\r\n\r\n"))
	if !complete {
		return "", false, nil
	}
	first, fields, _ := strings.Cut(string(head), "\r\n")
	parts := strings.Split(first, " ")
	if len(parts) != 3 || !strings.HasPrefix(parts[2], "HTTP/1.") {
		return "", false, fmt.Errorf("%w: not an HTTP request", ErrNoName)
	}
	found := 0
	for line := range strings.SplitSeq(fields, "\r\n") {
		name, value, _ := strings.Cut(line, ":")
		if strings.EqualFold(name, "Host") {
			found++
			host = strings.Trim(value, " \t")
		}
	}
	if found > 1 {
		return "", false, fmt.Errorf("%w: two Host headers", ErrNoName)
	}
	if _, after, absolute := strings.Cut(parts[1], "://"); absolute && !strings.HasPrefix(parts[1], "/") {
		host, _, _ = strings.Cut(after, "/")
	}
	return withoutPort(host), true, nil
}

// likeMethod reports whether the bytes may begin a request: letters, and then a
// space.
func likeMethod(said []byte) bool {
	const longest = 32
	for i, b := range said[:min(len(said), longest)] {
		switch {
		case b == ' ':
			return i > 0
		case b < 'A' || b > 'Z':
			return false
		}
	}
	return len(said) < longest
}

// withoutPort cuts the port off, and the brackets of an IPv6 address.
func withoutPort(host string) string {
	if inside, _, ok := strings.Cut(host, "]"); ok {
		return strings.TrimPrefix(inside, "[")
	}
	name, _, _ := strings.Cut(host, ":")
	return name
}
