package revproxy

import (
	"net/http"
	"net/http/httputil"
	"net/netip"
	"strings"
)

// rewrite makes the request to the app. ReverseProxy has removed the hop-by-hop
// fields before, and the parts of the query that net/url does not like.
func rewrite(pr *httputil.ProxyRequest, host string) {
	in, out := pr.In, pr.Out
	out.URL.Scheme, out.URL.Host, out.Host = "http", host, in.Host
	out.URL.Opaque = rawPath(in.RequestURI)
	out.URL.RawQuery = in.URL.RawQuery // semicolons are the app's business

	if x, ok := in.Context().Value(exchangeKey{}).(*exchange); ok {
		out.Trailer = x.trailer(out.Trailer)
	}
	if out.Method == http.MethodOptions {
		countDown(out.Header)
	}
	dropForwarding(out.Header)
	setForwarding(out.Header, in)
	out.Header.Add("Via", strings.TrimPrefix(in.Proto, "HTTP/")+" "+name)
}

// rawPath is the path of a request target as it came, or "" where net/url has to
// write it: in absolute form, and where it begins with two slashes, which
// url.URL takes for the beginning of an authority.
func rawPath(target string) string {
	if !strings.HasPrefix(target, "/") || strings.HasPrefix(target, "//") {
		return ""
	}
	path, _, _ := strings.Cut(target, "?")
	return path
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

// dropForwarding removes what a client claims about where it is.
func dropForwarding(h http.Header) {
	for field := range h {
		if isForwarding(field) {
			delete(h, field)
		}
	}
}

// setForwarding says what the proxy knows about where a request comes from.
func setForwarding(h http.Header, in *http.Request) {
	proto := "http"
	if in.TLS != nil {
		proto = "https"
	}
	forwarded := "proto=" + proto
	if in.Host != "" {
		h.Set("X-Forwarded-Host", in.Host)
		forwarded = "host=" + quoted(in.Host) + ";" + forwarded
	}
	if ip, ok := clientIP(in.RemoteAddr); ok {
		h.Set("X-Forwarded-For", ip.String())
		h.Set("X-Real-Ip", ip.String())
		node := ip.String()
		if ip.Is6() {
			node = `"[` + node + `]"` // RFC 7239 section 6
		}
		forwarded = "for=" + node + ";" + forwarded
	}
	h.Set("X-Forwarded-Proto", proto)
	h.Set("Forwarded", forwarded)
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
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// keepForm keeps an answer without a length without a length: "identity" tells
// net/http's server not to make chunks of it but to close the connection behind
// it. ReverseProxy has removed the app's own Transfer-Encoding.
func keepForm(res *http.Response) error {
	switch {
	case res.ContentLength >= 0, len(res.TransferEncoding) > 0, res.StatusCode == http.StatusSwitchingProtocols,
		res.Request.Method == http.MethodHead, res.Request.ProtoMajor != 1:
		return nil
	}
	res.Header.Set("Transfer-Encoding", "identity")
	return nil
}
