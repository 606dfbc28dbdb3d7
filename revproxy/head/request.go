package head

import "bytes"

// A Request is a simple head of a request. Its parts lie in the bytes that it was
// read from.
type Request struct {
	Fields
	Method, Target, Host []byte
	// Size is the number of bytes of the head, the empty line included.
	Size int
	// Length is the number of bytes of the body, -1 if it comes in chunks.
	Length int64
	// Declared says that there was a Content-Length.
	Declared bool
	// Close says that the client wants no further answer on the connection.
	Close bool
}

// Parse reads the head at the beginning of b.
//
// Simple is HTTP/1.1 of one of seven methods, a target that is a path with good
// percent-encoding, one plain Host, at most one Content-Length or a
// Transfer-Encoding that is just chunked, never both, and nothing else that changes
// how the message ends or what the connection is: no Expect, Upgrade, Trailer, TE, and in Connection at most one of keep-alive and
// close. net/http takes such a head for the same request; FuzzRequest checks it.
func (r *Request) Parse(b []byte) Verdict {
	size, v := end(b)
	if v != Simple {
		if v == Incomplete && !mayBegin(b) {
			return Other
		}
		return v
	}
	b = b[:size]
	line, _, _ := bytes.Cut(b, []byte("\r\n"))
	r.Size = size
	if !r.first(line) || !r.parse(b, len(line)+2) || !r.judge(b) {
		return Other
	}
	return Simple
}

// mayBegin reports whether b can be the beginning of a simple head: it tells
// another protocol by its first bytes.
func mayBegin(b []byte) bool {
	method, _, complete := bytes.Cut(b, []byte(" "))
	if complete {
		return isMethod(method)
	}
	return len(b) < len("OPTIONS ")
}

func isMethod(b []byte) bool {
	switch string(b) {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS":
		return true
	}
	return false
}

// first reads the request line.
func (r *Request) first(line []byte) bool {
	method, rest, _ := bytes.Cut(line, []byte(" "))
	target, ok := bytes.CutSuffix(rest, []byte(" HTTP/1.1"))
	r.Method, r.Target = method, target
	return ok && isMethod(method) && simpleTarget(target)
}

// simpleTarget reports whether a target is a path, without what net/url refuses.
func simpleTarget(t []byte) bool {
	if len(t) == 0 || t[0] != '/' {
		return false
	}
	query := false
	for i, c := range t {
		switch {
		case c <= ' ' || c == 0x7f:
			return false
		case c == '?':
			query = true
		case c == '%' && !query && (i+2 >= len(t) || !hex(t[i+1]) || !hex(t[i+2])):
			return false
		}
	}
	return true
}

func hex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= lower(c) && lower(c) <= 'f'
}

// judge looks at the fields that frame or route the message.
func (r *Request) judge(b []byte) bool {
	r.Host, r.Length, r.Declared, r.Close = nil, 0, false, false
	connections, chunked := 0, false
	for _, f := range r.All() {
		ok := true
		switch f.Kind {
		case Host:
			ok = r.Host == nil && simpleHost(f.Value(b))
			r.Host = f.Value(b)
		case ContentLength:
			ok = !r.Declared
			r.Declared = true
			if ok {
				r.Length, ok = number(f.Value(b))
			}
		case Connection:
			connections++
			r.Close = equal(f.Value(b), "close")
			ok = connections == 1 && (r.Close || equal(f.Value(b), "keep-alive"))
		case Coding:
			ok = !chunked && equal(f.Value(b), "chunked")
			chunked = true
		case Upgrade, Trailer, TE, Expect, MaxForwards:
			ok = false
		}
		if !ok {
			return false
		}
	}
	if chunked {
		r.Length = -1
	}
	return r.Host != nil && !(chunked && r.Declared)
}

func simpleHost(b []byte) bool {
	for _, c := range b {
		if !hosts[c] {
			return false
		}
	}
	return len(b) > 0
}

// Bodyless reports whether an answer to the request has no body whatever it says.
func (r *Request) Bodyless() bool { return string(r.Method) == "HEAD" }

// Idempotent reports whether the request may be sent twice (RFC 9110 section
// 9.2.2): its method allows it, and it has no body.
func (r *Request) Idempotent() bool {
	switch string(r.Method) {
	case "POST", "PATCH":
		return false
	}
	return r.Length == 0
}
