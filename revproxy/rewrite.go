package revproxy

import (
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// setTarget makes the target of the request to the app: the bytes that came,
// without the scheme and the authority of an absolute form. If it is not exact,
// net/url writes what begins with two slashes, which url.URL takes for the
// beginning of an authority.
func setTarget(u *url.URL, target string, exact bool) {
	if _, rest, ok := strings.Cut(target, "://"); ok && target[0] != '/' {
		_, path, ok := cutBefore(rest, "/?")
		switch {
		case !ok:
			target = "/"
		case path[0] == '?':
			target = "/" + path
		default:
			target = path
		}
	}
	path, query, found := strings.Cut(target, "?")
	u.RawQuery, u.ForceQuery = query, found && query == "" // semicolons are the app's business
	if exact || !strings.HasPrefix(path, "//") {
		u.Opaque = path
	}
}

// cutBefore cuts s before the first of some characters.
func cutBefore(s, chars string) (before, from string, ok bool) {
	if i := strings.IndexAny(s, chars); i >= 0 {
		return s[:i], s[i:], true
	}
	return s, "", false
}

// countDown lowers Max-Forwards, which a client sets to limit the way of an
// OPTIONS request. What is not a number is passed on.
func countDown(h http.Header) {
	if n, err := strconv.ParseUint(h.Get("Max-Forwards"), 10, 32); err == nil && n > 0 {
		h.Set("Max-Forwards", strconv.FormatUint(n-1, 10))
	}
}

// isForwarding reports whether a field says where a request comes from. An app
// that believes such a field must get it from us or not at all. Underscores
// count as dashes, because CGI and its heirs cannot tell them apart.
func isForwarding(field string) bool {
	field = http.CanonicalHeaderKey(strings.ReplaceAll(field, "_", "-"))
	switch field {
	case "Forwarded", "X-Forwarded", "X-Real-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "X-Originating-Ip",
		"X-Remote-Ip", "X-Remote-Addr", "X-Original-Forwarded-For", "X-Original-Host", "X-Original-Proto",
		"X-Host", "X-Scheme", "X-Url-Scheme", "X-Request-Id", "True-Client-Ip", "Client-Ip",
		"Cf-Connecting-Ip", "Cf-Connecting-Ipv6", "Fastly-Client-Ip", "Fly-Client-Ip", "Front-End-Https":
		return true
	}
	return strings.HasPrefix(field, "X-Forwarded-")
}

// setForwarding says what the proxy knows about where a request comes from.
func setForwarding(h http.Header, in *http.Request) {
	backing := make([]string, 5) // of all the fields: each has one value
	set := func(field, value string) {
		backing[0] = value
		h[field], backing = backing[:1:1], backing[1:]
	}
	proto := "http"
	if in.TLS != nil {
		proto = "https"
	}
	forwarded := "proto=" + proto
	if in.Host != "" {
		set("X-Forwarded-Host", in.Host)
		forwarded = "host=" + quoted(in.Host) + ";" + forwarded
	}
	if ip, ok := clientIP(in.RemoteAddr); ok {
		node := ip.String()
		set("X-Forwarded-For", node)
		set("X-Real-Ip", node)
		if ip.Is6() {
			node = `"[` + node + `]"` // RFC 7239 section 6
		}
		forwarded = "for=" + node + ";" + forwarded
	}
	set("X-Forwarded-Proto", proto)
	set("Forwarded", forwarded)
}

// clientIP is the address in a RemoteAddr, if there is one: it may also be a
// socket's path or a VSOCK address.
func clientIP(remote string) (netip.Addr, bool) {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}, false
	}
	return ap.Addr().Unmap().WithZone(""), true // a zone means nothing elsewhere
}

// quoted is a quoted-string (RFC 9110 5.6.4).
func quoted(s string) string {
	if !strings.ContainsAny(s, `\"`) {
		return `"` + s + `"`
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
