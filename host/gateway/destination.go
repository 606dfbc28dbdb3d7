package gateway

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// maxName is the longest domain name as text, without the final dot, and
// maxLabel the longest part of one (RFC 1035, section 2.3.4).
const (
	maxName  = 253
	maxLabel = 63
)

// A Destination is a set of addresses, or of names, and of ports that enclaves
// connect to. What a name stands for is learned from the answers to an enclave's
// own queries: see answers.
type Destination struct {
	network    netip.Prefix // invalid if it is a name
	name       string       // "www.example.com.", or ".example.com." for all names below
	first, end uint16       // ports, both inclusive
}

// ParseDestination reads ADDRESS, ADDRESS/BITS, NAME or *.NAME, which is every
// name below NAME and not NAME itself, and any of them with :PORT or :FIRST-LAST
// behind it. An IPv6 address in front of a port stands in brackets, with its
// BITS: [2001:db8::/32]:443.
func ParseDestination(text string) (Destination, error) {
	d := Destination{first: 1, end: 65535}
	where, ports, hasPorts := cutPorts(text)
	var err error
	if d.network, err = parseNetwork(where); err == nil {
		if d.network != d.network.Masked() {
			return Destination{}, fmt.Errorf("%s has bits behind its length: did you mean %s?", where, d.network.Masked())
		}
	} else if d.name, err = parseName(where); err != nil {
		return Destination{}, err
	}
	if hasPorts {
		d.first, d.end, err = parsePorts(ports)
	}
	if err != nil {
		return Destination{}, err
	}
	return d, nil
}

// cutPorts takes the ports off; the colons of an IPv6 address are none.
func cutPorts(text string) (where, ports string, ok bool) {
	if inner, isBracket := strings.CutPrefix(text, "["); isBracket {
		where, rest, closed := strings.Cut(inner, "]")
		ports, ok = strings.CutPrefix(rest, ":")
		if !closed || (!ok && rest != "") || !strings.Contains(where, ":") {
			return text, "", false // no address has a bracket: refused there
		}
		return where, ports, ok
	}
	if strings.Count(text, ":") > 1 {
		return text, "", false
	}
	return strings.Cut(text, ":")
}

// parseNetwork reads an address or a network. Addresses that hide others behind
// them, IPv4 in IPv6, are none: they are not on any wire.
func parseNetwork(text string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		addr, err := netip.ParseAddr(text)
		if err != nil || addr.Zone() != "" {
			return netip.Prefix{}, errors.New("no address, or one with a zone")
		}
		prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	if prefix.Addr().Is4In6() {
		return netip.Prefix{}, errors.New("IPv4 within IPv6")
	}
	return prefix, nil
}

// parseName reads a domain name, in the form that names are compared in: lower
// case, with the final dot, and without the star.
func parseName(text string) (string, error) {
	wrong := fmt.Errorf("%q is no address, no network like 10.0.0.0/8, and no name like example.com or *.example.com", text)
	name := strings.ToLower(strings.TrimSuffix(text, "."))
	host, isBelow := strings.CutPrefix(name, "*.")
	if host == "" || len(host) > maxName {
		return "", wrong
	}
	label := ""
	for label = range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > maxLabel || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return "", wrong
		}
	}
	if strings.Trim(label, "0123456789") == "" {
		return "", wrong // a mistyped address; no name ends in a number (RFC 3696, section 2)
	}
	if isBelow {
		return "." + host + ".", nil
	}
	return host + ".", nil
}

func parsePorts(text string) (first, end uint16, err error) {
	from, to, isRange := strings.Cut(text, "-")
	if !isRange {
		to = from
	}
	if first, err = parsePort(from); err == nil {
		end, err = parsePort(to)
	}
	if err == nil && first > end {
		err = fmt.Errorf("ports %d-%d are the wrong way round", first, end)
	}
	return first, end, err
}

func parsePort(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return 0, errors.New("want a port, 1 to 65535, or two with - between")
	}
	return uint16(n), nil
}

// isName reports whether d is a name, or all names below one.
func (d Destination) isName() bool { return d.name != "" }

// hasPort reports whether the port is one of d; noPort is if d leaves none out.
func (d Destination) hasPort(port uint16) bool {
	if port == noPort {
		return d.allPorts()
	}
	return port >= d.first && port <= d.end
}

// allPorts reports whether d leaves none out.
func (d Destination) allPorts() bool { return d.first == 1 && d.end == 65535 }

// containsAddr reports whether the address is one of d; none is that of a name.
func (d Destination) containsAddr(addr netip.Addr) bool {
	return d.network.IsValid() && d.network.Contains(addr)
}

// containsName reports whether the name, in lower case and with its final dot,
// is one of d.
func (d Destination) containsName(name string) bool {
	if strings.HasPrefix(d.name, ".") {
		return strings.HasSuffix(name, d.name) && len(name) > len(d.name)
	}
	return d.isName() && name == d.name
}

// String writes d as ParseDestination reads it.
func (d Destination) String() string {
	where := strings.TrimSuffix(d.name, ".")
	if strings.HasPrefix(where, ".") {
		where = "*" + where
	}
	if d.network.IsValid() {
		where = d.network.String()
	}
	if d.allPorts() {
		return where
	}
	if strings.Contains(where, ":") {
		where = "[" + where + "]"
	}
	if d.first == d.end {
		return fmt.Sprintf("%s:%d", where, d.first)
	}
	return fmt.Sprintf("%s:%d-%d", where, d.first, d.end)
}
