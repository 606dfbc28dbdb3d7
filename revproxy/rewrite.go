package revproxy

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/corridor-enclave/corridor/revproxy/head"
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
// that believes such a field must get it from us or not at all.
func isForwarding(field string) bool {
	return head.KindOf(field) == head.Origin
}

// An origin is what the proxy knows about where the requests of a connection come
// from.
type origin struct {
	client string // the client's IP address, "" if there is none
	scheme string // http or https
	told   bool   // client is what somebody says who passes connections on
}

// assertedField names what of the other forwarding fields somebody else asserts, by
// the names of Forwarded's parameters.
const assertedField = "X-Forwarded-Asserted"

// originOf is the origin of requests on a connection. A client with an IP address
// on a connection that is none of IP's own was told by whoever passed it on.
func originOf(remote string, local net.Addr, secure bool) origin {
	o := origin{scheme: "http"}
	if secure {
		o.scheme = "https"
	}
	if ip, ok := clientIP(remote); ok {
		o.client = ip.String()
		o.told = local != nil && !strings.HasPrefix(local.Network(), "tcp")
	}
	return o
}

// forwarded is the value of Forwarded (RFC 7239) before and behind the host.
func (o origin) forwarded() (before, behind string) {
	switch {
	case strings.Contains(o.client, ":"):
		before = `for="[` + o.client + `]";` // section 6
	case o.client != "":
		before = "for=" + o.client + ";"
	}
	return before, "proto=" + o.scheme
}

// constants calls set for those of the fields that do not depend on the host.
func (o origin) constants(tell Fields, set func(field, value string)) {
	if o.client != "" && tell.has(ForwardedFor) {
		set("X-Forwarded-For", o.client)
	}
	if o.client != "" && tell.has(RealIP) {
		set("X-Real-Ip", o.client)
	}
	if o.told && tell.has(ofClient) {
		set(assertedField, "for")
	}
	if tell.has(ForwardedProto) {
		set("X-Forwarded-Proto", o.scheme)
	}
}

// setForwarding says what the proxy knows about where a request comes from.
func setForwarding(h http.Header, in *http.Request, tell Fields, id string) {
	backing := make([]string, 7) // of all the fields: each has one value
	set := func(field, value string) {
		backing[0] = value
		h[field], backing = backing[:1:1], backing[1:]
	}
	local, _ := in.Context().Value(http.LocalAddrContextKey).(net.Addr)
	from := originOf(in.RemoteAddr, local, in.TLS != nil)
	from.constants(tell, set)
	if in.Host != "" && tell.has(ForwardedHost) {
		set("X-Forwarded-Host", in.Host)
	}
	if tell.has(Forwarded) {
		before, behind := from.forwarded()
		if in.Host != "" {
			before += "host=" + quoted(in.Host) + ";"
		}
		set("Forwarded", before+behind)
	}
	if tell.has(RequestID) {
		set("X-Request-Id", id)
	}
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
