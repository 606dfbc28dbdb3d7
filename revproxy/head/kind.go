package head

// A Kind is what a field means to a proxy.
type Kind uint8

// The kinds.
const (
	Plain         Kind = iota // passed on
	Hop                       // of one connection only (RFC 9110 section 7.6.1)
	Connection                // the same, and says which others are, and how the connection ends
	Coding                    // Transfer-Encoding
	Upgrade                   // of one connection only
	Trailer                   // of one connection only
	TE                        // of one connection only
	Host                      // where to
	ContentLength             // where the body ends
	Expect                    // an answer before the body
	MaxForwards               // how far
	Via                       // the way so far
	Origin                    // says where a request comes from
	Date                      // when an answer was made
)

// OfHop reports whether a field of this kind is for one connection only.
func (k Kind) OfHop() bool { return k >= Hop && k <= TE }

// longest is the length of the longest name that KindOf knows.
const longest = len("x-original-forwarded-for")

const forwardedPrefix = "x-forwarded-"

// KindOf tells what a field means by its name, in any case. For fields that say
// where a request comes from, all that is no letter or digit counts as a dash,
// because CGI and its heirs make underscores of it.
func KindOf[T string | []byte](name T) Kind {
	var small [longest]byte
	n, under := 0, false
	for n < len(name) && n < longest {
		c := lower(name[n])
		if c != '-' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			c, under = '-', true
		}
		small[n] = c
		n++
	}
	if n >= len(forwardedPrefix) && string(small[:len(forwardedPrefix)]) == forwardedPrefix {
		return Origin
	}
	if len(name) > longest {
		return Plain
	}
	kind := known(small[:n])
	if under && kind != Origin {
		return Plain
	}
	return kind
}

// known is KindOf for a name in lower case.
func known(name []byte) Kind {
	switch string(name) {
	case "proxy": // of no connection, but CGI makes HTTP_PROXY of it, which clients believe
		return Hop
	case "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization":
		return Hop
	case "connection":
		return Connection
	case "transfer-encoding":
		return Coding
	case "upgrade":
		return Upgrade
	case "trailer":
		return Trailer
	case "te":
		return TE
	case "host":
		return Host
	case "content-length":
		return ContentLength
	case "expect":
		return Expect
	case "max-forwards":
		return MaxForwards
	case "via":
		return Via
	case "date":
		return Date
	// An app that believes one of these must get it from the proxy or not at all.
	case "forwarded", "x-forwarded", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "x-originating-ip",
		"x-remote-ip", "x-remote-addr", "x-original-forwarded-for", "x-original-host", "x-original-proto",
		"x-host", "x-scheme", "x-url-scheme", "x-request-id", "true-client-ip", "client-ip",
		"cf-connecting-ip", "cf-connecting-ipv6", "fastly-client-ip", "fly-client-ip", "front-end-https",
		"proxy-client-ip", "wl-proxy-client-ip", "x-proxyuser-ip", "x-envoy-external-address", "x-azure-clientip", "x-appengine-user-ip":
		return Origin
	}
	return Plain
}
