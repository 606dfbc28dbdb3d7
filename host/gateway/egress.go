package gateway

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// A Destination is a set of addresses and ports that enclaves connect to.
type Destination struct {
	network    netip.Prefix
	first, end uint16 // ports, both inclusive
}

// ParseDestination reads ADDRESS, ADDRESS/BITS, or one of them with :PORT or
// :FIRST-LAST behind it. IPv4 only: enclaves have nothing else.
func ParseDestination(text string) (Destination, error) {
	d := Destination{first: 1, end: 65535}
	where, ports, hasPorts := strings.Cut(text, ":")
	prefix, err := netip.ParsePrefix(where)
	if err != nil {
		var addr netip.Addr
		if addr, err = netip.ParseAddr(where); err == nil {
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
	}
	if err != nil || !prefix.Addr().Is4() {
		return d, fmt.Errorf("%q is no IPv4 address and no network like 10.0.0.0/8", where)
	}
	if prefix != prefix.Masked() {
		return d, fmt.Errorf("%s has bits behind its length: did you mean %s?", where, prefix.Masked())
	}
	d.network = prefix
	if !hasPorts {
		return d, nil
	}
	first, end, isRange := strings.Cut(ports, "-")
	if !isRange {
		end = first
	}
	if d.first, err = parsePort(first); err == nil {
		d.end, err = parsePort(end)
	}
	if err == nil && d.first > d.end {
		err = fmt.Errorf("ports %d-%d are the wrong way round", d.first, d.end)
	}
	return d, err
}

func parsePort(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return 0, errors.New("want a port, 1 to 65535, or two with - between")
	}
	return uint16(n), nil
}

// contains reports whether the destination is one of d.
func (d Destination) contains(to netip.AddrPort) bool {
	return d.network.Contains(to.Addr()) && to.Port() >= d.first && to.Port() <= d.end
}

// String writes d as ParseDestination reads it.
func (d Destination) String() string {
	switch {
	case d.first == 1 && d.end == 65535:
		return d.network.String()
	case d.first == d.end:
		return fmt.Sprintf("%s:%d", d.network, d.first)
	}
	return fmt.Sprintf("%s:%d-%d", d.network, d.first, d.end)
}

// An Egress says which destinations enclaves may reach, among those that are
// not the host's own. Deny is stronger than Allow; an empty Allow is everything.
type Egress struct {
	Allow, Deny []Destination
}

// refuses returns why the destination is not allowed, or nothing.
func (e Egress) refuses(to netip.AddrPort) string {
	for _, d := range e.Deny {
		if d.contains(to) {
			return "denied by --egress-deny " + d.String()
		}
	}
	for _, d := range e.Allow {
		if d.contains(to) {
			return ""
		}
	}
	if len(e.Allow) > 0 {
		return "not among what --egress-allow names"
	}
	return ""
}
