package publish

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/corridor-enclave/corridor/host/route"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// A Road is how a published port's connections reach the enclave.
type Road int

const (
	// Link is a TCP connection on the link, to any port of the enclave.
	Link Road = iota
	// Stream is a VSOCK stream of its own, to a port where the enclave takes them.
	Stream
)

// String is the road as the user names it.
func (r Road) String() string {
	if r == Stream {
		return "stream"
	}
	return "link"
}

// maxPort is the largest port on the road: TCP's, or VSOCK's without the wildcard.
func (r Road) maxPort() uint64 {
	if r == Stream {
		return 1<<32 - 2
	}
	return 1<<16 - 1
}

// A Spec says which port of the host leads to which port of which enclave.
type Spec struct {
	Local    string          // where clients connect: "127.0.0.1:8443"; ":443" is every address
	Road     Road            // how they get on
	Enclaves []vsockconn.CID // that share the clients; none is the only enclave there is
	Port     uint32          // in the enclave: of TCP on the link, of VSOCK for streams
}

// LeadsOnlyTo reports whether the port leads to that enclave and to no other.
func (s Spec) LeadsOnlyTo(cid vsockconn.CID) bool {
	return len(s.Enclaves) == 1 && s.Enclaves[0] == cid
}

// ParseSpec reads ADDR=link:PORT or ADDR=stream:PORT, with @CID[,CID]... behind it
// or not.
func ParseSpec(value string) (Spec, error) {
	local, way, ok := strings.Cut(value, "=")
	if !ok {
		return Spec{}, errors.New("want ADDR=stream:PORT[@CID,...] or ADDR=link:PORT[@CID,...], for example 127.0.0.1:8443=stream:1443")
	}
	if err := CheckLocal(local); err != nil {
		return Spec{}, err
	}
	s := Spec{Local: local}
	kind, rest, _ := strings.Cut(way, ":")
	switch kind {
	case Link.String():
	case Stream.String():
		s.Road = Stream
	default:
		return Spec{}, fmt.Errorf("%q is not a road: want stream:PORT[@CID,...] or link:PORT[@CID,...]", way)
	}
	portText, cidText, named := strings.Cut(rest, "@")
	port, err := strconv.ParseUint(portText, 10, 32)
	if err != nil || port == 0 || port > s.Road.maxPort() {
		return Spec{}, fmt.Errorf("%q is not a port of the enclave: want 1 to %d", portText, s.Road.maxPort())
	}
	s.Port = uint32(port)
	if !named {
		return s, nil
	}
	s.Enclaves, err = route.ParseCIDs(cidText)
	return s, err
}

// CheckLocal returns what is wrong with an address to listen on.
func CheckLocal(local string) error {
	host, port, err := net.SplitHostPort(local)
	if err != nil {
		return fmt.Errorf("%q is not an address to listen on: want HOST:PORT", local)
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "" && host != "localhost" {
		return fmt.Errorf("%q is not an IP address to listen on", host)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q is not a port: want 0 to 65535, where 0 is any free one", port)
	}
	return nil
}

// String writes the Spec as ParseSpec reads it.
func (s Spec) String() string {
	text := s.Local + "=" + s.Road.String() + ":" + strconv.FormatUint(uint64(s.Port), 10)
	if len(s.Enclaves) > 0 {
		text += "@" + route.FormatCIDs(s.Enclaves)
	}
	return text
}
