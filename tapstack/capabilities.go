package tapstack

import (
	"fmt"
	"strconv"
	"strings"
)

// UpgradePath is the path of the HTTP POST that opens a link between two ends of
// ours, in the extended framing.
const UpgradePath = "/tapstack/v1/connect"

const (
	upgradeProtocol    = "tapstack/1"
	capabilitiesHeader = "Tapstack"
)

// Capabilities is what one end says about itself when a link opens (WIRE.md,
// section 8). Each end keeps to what the other one said.
type Capabilities struct {
	// Offload: it takes frames with work left in their virtio-net header, which
	// may be longer than its MTU allows.
	Offload bool
	// Ping: it answers pings, so that silence means that it is gone.
	Ping bool
	// IPv6: it takes IPv6 packets. Both ends use them when both say so.
	IPv6 bool
	// MaxFrame is the longest frame that it takes, from the Ethernet header on.
	MaxFrame int
	// MTU is its device's: the longest IP packet that it takes otherwise.
	MTU int
	// Lanes is how many streams it takes for one link; 0 is one. The smaller of
	// what both say counts, where the host names the link.
	Lanes int
	// Link names a link of several lanes, in 32 hexadecimal digits that nobody can
	// guess: the host in its first answer, the enclave in the requests for the
	// further lanes. It is empty where there is one lane.
	Link string
}

// PlainPeer is what a peer takes that says nothing about itself: what all stock
// peers take.
func PlainPeer() Capabilities {
	return Capabilities{MaxFrame: DefaultMTU + MinFrame, MTU: DefaultMTU}
}

// String writes the capabilities as they stand in the header.
func (c Capabilities) String() string {
	var names string
	for _, flag := range []struct {
		is   bool
		name string
	}{{c.Offload, "vnet, "}, {c.Ping, "ping, "}, {c.IPv6, "ipv6, "}} {
		if flag.is {
			names += flag.name
		}
	}
	if c.Lanes > 0 {
		names += fmt.Sprintf("lanes=%d, ", c.Lanes)
	}
	if c.Link != "" {
		names += "link=" + c.Link + ", "
	}
	return fmt.Sprintf("%smax-frame=%d, mtu=%d", names, c.MaxFrame, c.MTU)
}

// withoutLink is for logs: the name of the link is a secret of both ends.
func (c Capabilities) withoutLink() Capabilities {
	c.Link = ""
	return c
}

// ParseCapabilities reads the header of any peer. Names that it does not know
// are ignored, so that newer peers may say more; what is not said is that of
// PlainPeer. A number outside of what the link can carry is an error: the
// caller should refuse the link.
func ParseCapabilities(text string) (Capabilities, error) {
	c := PlainPeer()
	for part := range strings.SplitSeq(text, ",") {
		name, value, hasValue := strings.Cut(strings.TrimSpace(part), "=")
		var err error
		switch name {
		case "vnet":
			c.Offload = true
		case "ping":
			c.Ping = !hasValue
		case "ipv6":
			c.IPv6 = !hasValue // with one it would be something newer
		case "max-frame":
			c.MaxFrame, err = parseWithin(value, DefaultMTU+MinFrame, MaxFrame)
		case "mtu":
			c.MTU, err = parseWithin(value, minMTU, MaxFrame-MinFrame)
		case "lanes":
			c.Lanes, err = parseWithin(value, 1, maxSaidLanes)
		case "link":
			c.Link, err = parseLink(value)
		}
		if err != nil {
			return Capabilities{}, fmt.Errorf("tapstack: capability %s: %w", name, err)
		}
	}
	return c, nil
}

// minMTU is the smallest that the link is used with (RFC 791: what every host
// must accept).
const minMTU = 576

func parseWithin(value string, least, most int) (int, error) {
	n, err := strconv.ParseUint(value, 10, 31)
	if err != nil || int(n) < least || int(n) > most {
		return 0, fmt.Errorf("%q is outside %d to %d", value, least, most)
	}
	return int(n), nil
}
