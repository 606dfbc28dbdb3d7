package h2

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/corridor-enclave/corridor/revproxy/head"
)

// A malformed request is an error of its stream (RFC 9113 section 8.1.1).
func malformed(id uint32) error { return streamError{id: id, code: codeProtocol} }

// pseudo are the fields that stand for HTTP/1.1's request line (RFC 9113 section
// 8.3.1). The reader has seen to their order and that none comes twice.
type pseudo struct{ method, scheme, authority, path string }

func pseudoOf(l *fieldList) (p pseudo, ok bool) {
	for _, field := range l.fields[:l.pseudo] {
		switch field.Name {
		case ":method":
			p.method = field.Value
		case ":scheme":
			p.scheme = field.Value
		case ":authority":
			p.authority = field.Value
		case ":path":
			p.path = field.Value
		}
	}
	switch {
	case p.method == http.MethodConnect:
		ok = p.authority != "" && p.scheme == "" && p.path == ""
	case p.path == "*":
		ok = p.method == http.MethodOptions
	default:
		ok = strings.HasPrefix(p.path, "/")
	}
	ok = ok && validName(p.method, true) && !strings.Contains(p.authority, "@")
	return p, ok && (p.method == http.MethodConnect || p.scheme == "https" || p.scheme == "http")
}

// ofConnection reports whether a field belongs to a connection of HTTP/1.1, and so
// makes a message malformed (RFC 9113 section 8.2.2).
func ofConnection(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}

// request makes the request out of a header list, and the stream's body.
func (c *conn) request(st *stream, l *fieldList) (*http.Request, error) {
	p, ok := pseudoOf(l)
	if !ok {
		return nil, malformed(st.id)
	}
	header, ok := c.header(l)
	if !ok {
		return nil, malformed(st.id)
	}
	host := p.authority
	switch given := header["Host"]; {
	case len(given) > 1, len(given) == 1 && host != "" && !strings.EqualFold(host, given[0]):
		return nil, malformed(st.id) // RFC 9113 section 8.3.1
	case len(given) == 1:
		host = given[0]
		delete(header, "Host")
	}
	if strings.Contains(host, "@") {
		return nil, malformed(st.id)
	}
	req := &http.Request{
		Method: p.method, RequestURI: p.path, Host: host, Header: header, Body: http.NoBody,
		Proto: "HTTP/2.0", ProtoMajor: 2, TLS: c.tls, RemoteAddr: c.remote, Trailer: trailersOf(header),
	}
	if p.method == http.MethodConnect {
		req.URL, req.RequestURI = &url.URL{Host: host}, host
	} else if u, err := url.ParseRequestURI(p.path); err == nil {
		req.URL = u
	} else {
		return nil, malformed(st.id)
	}
	return req, c.requestBody(st, l, req)
}

// header makes a map of a header list. It reports false for one that is malformed.
func (c *conn) header(l *fieldList) (http.Header, bool) {
	fields := l.regular()
	header := make(http.Header, len(fields))
	values := make([]string, len(fields))
	for i, field := range fields {
		name := c.names.canonical(field.Name)
		if ofConnection(name) || name == "Te" && field.Value != "trailers" {
			return nil, false
		}
		if had, ok := header[name]; ok {
			header[name] = append(had, field.Value)
			continue
		}
		values[i] = field.Value
		header[name] = values[i : i+1 : i+1]
	}
	if cookies := header["Cookie"]; len(cookies) > 1 { // RFC 9113 section 8.2.3
		header["Cookie"] = []string{strings.Join(cookies, "; ")}
	}
	return header, true
}

// trailersOf takes the announced trailers off a header.
func trailersOf(h http.Header) http.Header {
	var trailers http.Header
	for _, value := range h["Trailer"] {
		for name := range strings.SplitSeq(value, ",") {
			name = http.CanonicalHeaderKey(strings.TrimSpace(name))
			if !mayTrail(name) {
				continue
			}
			if trailers == nil {
				trailers = make(http.Header)
			}
			trailers[name] = nil
		}
	}
	delete(h, "Trailer")
	return trailers
}

// mayTrail reports whether a field may be a trailer (RFC 9110 section 6.5.1).
func mayTrail(name string) bool { return validName(name, true) && head.KindOf(name).MayTrail() }

// requestBody gives a request its body, if it has one.
func (c *conn) requestBody(st *stream, l *fieldList, req *http.Request) error {
	declared := int64(-1)
	if lengths := req.Header["Content-Length"]; len(lengths) > 0 {
		n, err := strconv.ParseUint(lengths[0], 10, 63)
		if err != nil || len(lengths) > 1 {
			return malformed(st.id)
		}
		declared = int64(n) //nolint:gosec // 63 bits
	}
	expects := len(req.Header["Expect"]) == 1 && strings.EqualFold(req.Header["Expect"][0], "100-continue")
	if expects {
		delete(req.Header, "Expect")
	}
	if l.ends {
		st.remoteDone = true
		if declared > 0 {
			return malformed(st.id)
		}
		return nil
	}
	st.body = newBody(st)
	st.body.needsContinue = expects
	st.declared, st.announced = declared, req.Trailer
	req.ContentLength, req.Body = declared, st.body
	return nil
}

// maxNames is how many names of fields that are not common a connection remembers.
const (
	maxNames     = 64
	maxNameBytes = 64
)

// names are those of fields, as a map of a header has them and as the wire has
// them. Each saves an allocation for each field.
type names struct{ cased, lowered map[string]string }

// canonical is the name in a map of a header.
func (n *names) canonical(name string) string {
	return remember(&n.cased, name, http.CanonicalHeaderKey)
}

// lower is the name on the wire, "" if it cannot be there.
func (n *names) lower(name string) string {
	return remember(&n.lowered, name, func(name string) string {
		if !validName(name, true) {
			return ""
		}
		return strings.ToLower(name)
	})
}

func remember(known *map[string]string, name string, form func(string) string) string {
	if f, ok := (*known)[name]; ok {
		return f
	}
	f := form(name)
	if *known == nil {
		*known = make(map[string]string)
	}
	if len(*known) < maxNames && len(name) <= maxNameBytes {
		(*known)[name] = f
	}
	return f
}
