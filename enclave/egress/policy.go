package egress

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/corridor-enclave/corridor/tapstack/stream"
)

// A Policy says what may be reached. The zero value allows nothing.
type Policy struct{ Allow []Rule }

// A Rule allows a set of names or addresses, and of ports. Make one with
// ParseRule.
type Rule struct {
	kind        ruleKind
	name        string       // of oneName and namesBelow
	network     netip.Prefix // of addresses
	first, last uint16       // ports
}

type ruleKind int

const (
	everything ruleKind = iota // every name, every public address
	oneName
	namesBelow
	addresses
)

// ParseRule reads *, NAME, *.NAME (every name below it, not itself), ADDRESS or
// ADDRESS/BITS, each alone or with :PORT or :FIRST-LAST. An IPv6 address in front
// of a port stands in brackets, with its BITS.
func ParseRule(text string) (Rule, error) {
	where, ports := cutPorts(text)
	r := Rule{first: 1, last: 65535}
	if ports != "" {
		var err error
		if r.first, r.last, err = parsePorts(ports[1:]); err != nil {
			return Rule{}, err
		}
	}
	if where == "*" {
		return r, nil
	}
	if network, err := parseNetwork(where); err == nil {
		r.kind, r.network = addresses, network
		if network != network.Masked() {
			return Rule{}, fmt.Errorf("%s has bits behind its length: did you mean %s?", network, network.Masked())
		}
		return r, nil
	}
	r.kind = oneName
	if below, ok := strings.CutPrefix(where, "*."); ok {
		r.kind, where = namesBelow, below
	}
	d, err := ParseDestination(where, 1)
	if err != nil || d.Name == "" {
		return Rule{}, fmt.Errorf("%q is none of *, NAME, *.NAME, ADDRESS, ADDRESS/BITS", where)
	}
	r.name = d.Name
	return r, nil
}

// cutPorts splits off what follows the last colon that is no part of an address;
// ports begins with that colon.
func cutPorts(text string) (where, ports string) {
	if inside, ok := strings.CutPrefix(text, "["); ok {
		if where, ports, ok = strings.Cut(inside, "]"); ok && (ports == "" || ports[0] == ':') {
			return where, ports
		}
		return text, ""
	}
	if i := strings.IndexByte(text, ':'); i >= 0 && i == strings.LastIndexByte(text, ':') {
		return text[:i], text[i:]
	}
	return text, ""
}

func parseNetwork(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		return netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()), nil
	}
	return netip.ParsePrefix(text)
}

func parsePorts(text string) (first, last uint16, err error) {
	from, to, isRange := strings.Cut(text, "-")
	if !isRange {
		to = from
	}
	if first, err = parsePort(from); err == nil {
		last, err = parsePort(to)
	}
	if err == nil && first > last {
		err = fmt.Errorf("ports %d-%d are the wrong way round", first, last)
	}
	return first, last, err
}

func parsePort(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is no port: want 1 to 65535, or two with - between", text)
	}
	return uint16(n), nil
}

// String writes the rule as ParseRule reads it.
func (r Rule) String() string {
	where := "*"
	switch r.kind {
	case oneName:
		where = r.name
	case namesBelow:
		where = "*." + r.name
	case addresses:
		where = r.network.String()
	}
	if r.first == 1 && r.last == 65535 {
		return where
	}
	if strings.Contains(where, ":") {
		where = "[" + where + "]"
	}
	if r.first == r.last {
		return fmt.Sprintf("%s:%d", where, r.first)
	}
	return fmt.Sprintf("%s:%d-%d", where, r.first, r.last)
}

// A Destination is where a connection is to go, before anybody has resolved it.
type Destination struct {
	Name string     // lower case, without a dot at the end; empty if Addr is valid
	Addr netip.Addr // never IPv4 in IPv6
	Port uint16
}

// errDestination ends the errors of ParseDestination.
var errDestination = errors.New("neither a host name nor an IP address")

// ParseDestination reads a host as apps write it. It refuses what some resolvers
// would take for an address and others for a name (127.1, 0x7f000001, 017700000001),
// since whoever resolves it would not see what the policy saw.
func ParseDestination(host string, port uint16) (Destination, error) {
	if port == 0 {
		return Destination{}, errors.New("port 0 is nowhere")
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		if addr.Zone() != "" {
			return Destination{}, fmt.Errorf("%q: %w", host, errDestination)
		}
		return Destination{Addr: addr.Unmap(), Port: port}, nil
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	if _, err := (stream.Call{Name: name, Port: port}).Append(nil); err != nil || isNumber(name[strings.LastIndexByte(name, '.')+1:]) {
		return Destination{}, fmt.Errorf("%q: %w", host, errDestination)
	}
	return Destination{Name: name, Port: port}, nil
}

// isNumber reports whether a name's last label makes it an IPv4 address to the C
// library (the URL standard's "ends in a number").
func isNumber(label string) bool {
	if strings.Trim(label, "0123456789") == "" {
		return true
	}
	hex, ok := strings.CutPrefix(label, "0x")
	return ok && strings.Trim(hex, "0123456789abcdef") == ""
}

// call is what the host is asked for.
func (d Destination) call() stream.Call {
	return stream.Call{Name: d.Name, Addr: d.Addr, Port: d.Port}
}

// String is the destination as net.Dial takes it.
func (d Destination) String() string { return d.call().String() }

// Host is the destination without its port.
func (d Destination) Host() string {
	if d.Name != "" {
		return d.Name
	}
	return d.Addr.String()
}

// Refuses returns why the destination may not be reached, or nothing.
func (p Policy) Refuses(d Destination) string {
	if d.Name == "localhost" || strings.HasSuffix(d.Name, ".localhost") {
		return "it is this enclave itself" // RFC 6761, section 6.3
	}
	if d.Addr.IsValid() {
		if why := never(d.Addr); why != "" {
			return why
		}
	}
	for _, r := range p.Allow {
		if r.allows(d) {
			return ""
		}
	}
	return "not among what --egress-allow names"
}

func (r Rule) allows(d Destination) bool {
	if d.Port < r.first || d.Port > r.last {
		return false
	}
	switch r.kind {
	case oneName:
		return d.Name == r.name
	case namesBelow:
		return strings.HasSuffix(d.Name, "."+r.name)
	case addresses:
		return d.Addr.IsValid() && r.network.Contains(d.Addr)
	}
	return d.Name != "" || public(d.Addr)
}

// never says why an address cannot be allowed: to reach it would be to reach the
// enclave itself, the host's own services, or nothing. It holds for what names
// resolve to as well, wherever the enclave sees that.
func never(addr netip.Addr) string {
	switch addr = addr.Unmap(); {
	case !addr.IsValid() || addr.IsUnspecified() || addr.IsLoopback():
		return "it is this enclave itself"
	case addr.IsLinkLocalUnicast(), addr == netip.AddrFrom16([16]byte{0xfd, 0, 0x0e, 0xc2, 14: 0x02, 15: 0x54}):
		return "link-local addresses, with the instance metadata, are the host's own"
	case addr.IsMulticast():
		return "multicast is not carried"
	case addr.Is4() && (addr.As4()[0] == 0 || addr.As4()[0] >= 240):
		return "not an address that can be connected to"
	}
	return ""
}

// public reports whether an address is one of the internet at large: what * means.
func public(addr netip.Addr) bool {
	return addr.IsGlobalUnicast() && !addr.IsPrivate() &&
		!slices.ContainsFunc(special(), func(p netip.Prefix) bool { return p.Contains(addr) })
}

// special are the networks of RFC 6890 that are not public and that net/netip does
// not know, and those that lead to an IPv4 address which it cannot see.
func special() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("100.64.0.0/10"),   // between a provider and its customers
		netip.MustParsePrefix("192.0.0.0/24"),    // protocol assignments
		netip.MustParsePrefix("192.0.2.0/24"),    // documentation
		netip.MustParsePrefix("198.18.0.0/15"),   // benchmarks
		netip.MustParsePrefix("198.51.100.0/24"), // documentation
		netip.MustParsePrefix("203.0.113.0/24"),  // documentation
		netip.MustParsePrefix("::/96"),           // IPv4-compatible
		netip.MustParsePrefix("64:ff9b::/96"),    // IPv4 by NAT64
		netip.MustParsePrefix("64:ff9b:1::/48"),  // the same, local
		netip.MustParsePrefix("100::/64"),        // thrown away
		netip.MustParsePrefix("2001::/23"),       // protocol assignments, with Teredo
		netip.MustParsePrefix("2001:db8::/32"),   // documentation
		netip.MustParsePrefix("2002::/16"),       // IPv4 by 6to4
		netip.MustParsePrefix("fec0::/10"),       // site-local of old
	}
}
