package config

import (
	"errors"
	"net"
	"net/netip"
	"strconv"

	"github.com/corridor-enclave/corridor/enclave/egress"
	"github.com/corridor-enclave/corridor/tapstack/settings"
	"github.com/corridor-enclave/corridor/tapstack/stream"
)

// An Egress is the way out for what can be told to use it.
type Egress struct {
	// Policy is what may be reached that way; the zero value is nothing.
	Policy egress.Policy
	// ByLink connects through the link; otherwise each connection is a stream to
	// the host's Port.
	ByLink bool
	Port   uint32
	// Secrets says that KMS is reached that way, even if nothing is served.
	Secrets bool
	// SOCKS and Connect are loopback addresses where SOCKS5 and HTTP CONNECT are
	// served; empty is off.
	SOCKS, Connect string
	// Proxy is a loopback address where plain HTTP is taken for servers of HTTPS,
	// those whose names end in Suffix. Roots is the file of certificates that
	// verifies them; empty is the system's.
	Proxy, Suffix, Roots string
}

// egressSettings are the part of the declaration that belongs to Egress.
type egressSettings struct {
	allow          *[]egress.Rule
	byLink         *bool
	port           *uint32
	socks, connect *string
	proxy, suffix  *string
	roots          *string
}

func (e *egressSettings) declare(s *settings.Set) {
	e.allow = settings.List(s, "egress-allow", "what may be reached by --socks and the like: `NAME[:PORT[-PORT]]`, *.NAME, ADDR[/BITS], or * for every name and public address", egress.ParseRule)
	e.byLink = settings.Var(s, "egress-road", "stream", "how: `stream`, one of VSOCK for each connection, or link", parseRoad)
	e.port = settings.Var(s, "egress-port", strconv.Itoa(stream.CallPort), "the host's VSOCK `port` for such streams", parsePort)
	e.socks = settings.Var(s, "socks", "", "serve SOCKS5 to the app at this `127.0.0.1:PORT`, and tell it by ALL_PROXY", parseLoopback)
	e.connect = settings.Var(s, "http-connect", "", "serve HTTP CONNECT to the app at this `127.0.0.1:PORT`, and tell it by HTTPS_PROXY", parseLoopback)
	e.proxy = settings.Var(s, "egress-proxy", "", "take plain HTTP of the app at this `127.0.0.1:PORT` for http://NAME.corridor/, and pass it on to https://NAME/ over connections that are kept", parseLoopback)
	e.suffix = settings.Var(s, "egress-suffix", "corridor", "what the `name` ends in that --egress-proxy takes", parseFQDN)
	e.roots = settings.Var(s, "egress-roots", "", "`file` of certificates in PEM that verifies what --egress-proxy connects to (default: the system's)", parseText)
}

// assemble leaves everything at zero where nobody is let out.
func (e *egressSettings) assemble(secrets Secrets) Egress {
	all := Egress{
		Policy: egress.Policy{Allow: *e.allow}, ByLink: *e.byLink, Port: *e.port,
		Secrets: len(secrets.List) > 0 && len(*e.allow) > 0 && !*e.byLink,
		SOCKS:   *e.socks, Connect: *e.connect, Proxy: *e.proxy, Suffix: *e.suffix, Roots: *e.roots,
	}
	if !all.On() {
		return Egress{}
	}
	return all
}

// On reports whether anybody is let out.
func (e Egress) On() bool { return e.Secrets || e.SOCKS+e.Connect+e.Proxy != "" }

func (e *egressSettings) check(s *settings.Set, c Config) {
	if c.Egress.On() && len(c.Egress.Policy.Allow) == 0 && !s.IsSet("egress-allow") {
		s.Reject("egress-allow", "missing: nothing may be reached; * is everything")
	}
	if c.Egress.On() && c.Egress.ByLink && !c.Link.On {
		s.Reject("egress-road", "there is no link: say stream, or --link on")
	}
	taken := map[string]string{}
	for _, a := range []struct{ setting, address string }{{"socks", c.Egress.SOCKS}, {"http-connect", c.Egress.Connect}, {"egress-proxy", c.Egress.Proxy}} {
		if by, ok := taken[a.address]; ok && a.address != "" {
			s.Reject(a.setting, "%s is taken by --%s", a.address, by)
		}
		taken[a.address] = a.setting
	}
}

// parseRoad reports whether the road is the link.
func parseRoad(v string) (byLink bool, err error) {
	if v != "stream" && v != "link" {
		return false, errors.New("neither stream nor link")
	}
	return v == "link", nil
}

// parseLoopback takes an address that nobody outside reaches, with a port that the
// app can be told before it is listened on.
func parseLoopback(v string) (string, error) {
	e, err := parseTCP(v)
	if err != nil {
		return "", errors.New("not 127.0.0.1:PORT")
	}
	host, port, _ := net.SplitHostPort(e.Address) // parseTCP joined them
	if a, err := netip.ParseAddr(host); err != nil || !a.IsLoopback() {
		return "", errors.New("not a loopback address: whoever reaches it gets out")
	}
	if port == "0" {
		return "", errors.New("port 0 is a fresh one each time, which the app cannot be told")
	}
	return e.Address, nil
}
