package publish

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// A Spec says which port of the host leads to which port of which enclave.
type Spec struct {
	Local string        // where clients connect: "127.0.0.1:8443"; ":443" is every address
	CID   vsockconn.CID // the enclave; vsockconn.CIDAny is the only one there is
	Port  uint16        // in the enclave, on the link
}

// ParseSpec reads ADDR=link:PORT or ADDR=link:PORT@CID.
func ParseSpec(value string) (Spec, error) {
	local, road, ok := strings.Cut(value, "=")
	if !ok {
		return Spec{}, fmt.Errorf("want ADDR=link:PORT[@CID], for example 127.0.0.1:8443=link:443")
	}
	if err := CheckLocal(local); err != nil {
		return Spec{}, err
	}
	kind, rest, _ := strings.Cut(road, ":")
	switch kind {
	case "link":
	case "stream":
		return Spec{}, fmt.Errorf("streams are not carried yet: use %s=link:PORT", local)
	default:
		return Spec{}, fmt.Errorf("%q is not a road: want link:PORT[@CID]", road)
	}
	portText, cidText, named := strings.Cut(rest, "@")
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 {
		return Spec{}, fmt.Errorf("%q is not a port of the enclave: want 1 to 65535", portText)
	}
	s := Spec{Local: local, CID: vsockconn.CIDAny, Port: uint16(port)}
	if !named {
		return s, nil
	}
	cid, err := strconv.ParseUint(cidText, 10, 32)
	if err != nil || cid < firstGuest || vsockconn.CID(cid) == vsockconn.CIDAny {
		return Spec{}, fmt.Errorf("%q is not the CID of an enclave: want %d to 4294967294", cidText, firstGuest)
	}
	s.CID = vsockconn.CID(cid)
	return s, nil
}

// firstGuest is the lowest CID that another party can have: 0 is the hypervisor.
// CID 1 is loopback, where an enclave is tested without a hypervisor.
const firstGuest = 1

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
	text := s.Local + "=link:" + strconv.Itoa(int(s.Port))
	if s.CID != vsockconn.CIDAny {
		text += "@" + s.CID.String()
	}
	return text
}
