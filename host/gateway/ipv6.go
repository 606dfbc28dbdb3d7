package gateway

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"

	"github.com/corridor-enclave/corridor/tapstack"
)

// IPv6 says whether enclaves that take IPv6 get it.
type IPv6 int

// IPv6Auto, the default, gives it while this host has a route to the IPv6
// internet and an address to go there with; IPv6On always; IPv6Off never.
const (
	IPv6Auto IPv6 = iota
	IPv6On
	IPv6Off
)

// ParseIPv6 reads auto, on or off.
func ParseIPv6(text string) (IPv6, error) {
	switch text {
	case "auto":
		return IPv6Auto, nil
	case "on":
		return IPv6On, nil
	case "off":
		return IPv6Off, nil
	}
	return 0, errors.New("want auto, on or off")
}

// minIPv6MTU is the least that IPv6 needs (RFC 8200, section 5).
const minIPv6MTU = 1280

// hasIPv6 reports whether a link that opens now may carry IPv6.
func (g *Gateway) hasIPv6() bool {
	if g.config.MTU < minIPv6MTU || g.config.IPv6 == IPv6Off {
		return false
	}
	if g.config.IPv6 == IPv6On {
		return true
	}
	// A UDP socket that is connected has looked its route up and has sent nothing.
	// The address is the first of those that are given out to networks.
	conn, err := net.DialUDP("udp6", nil, net.UDPAddrFromAddrPort(netip.MustParseAddrPort("[2000::1]:9")))
	if err != nil {
		return false
	}
	defer conn.Close()
	own := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
	return own.IsGlobalUnicast() && !own.IsPrivate()
}

// dial6 connects to the enclave as a client that speaks IPv6, if the link carries
// it and the address is one of the internet: ok is false if it is not, or if
// nobody listens for IPv6 in the enclave.
func (n *network) dial6(ctx context.Context, client netip.AddrPort, port uint16) (conn net.Conn, ok bool, err error) {
	from := client.Addr().Unmap()
	if !n.stack.CarriesIPv6() || !from.Is6() || from.Zone() != "" || !from.IsGlobalUnicast() || from.IsPrivate() {
		return nil, false, nil
	}
	to := netip.AddrPortFrom(tapstack.EnclaveAddr6(), port)
	conn, err = n.dialAs(ctx, netip.AddrPortFrom(from, client.Port()), to)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil, false, nil
	}
	return conn, true, err
}
