package stream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"time"
)

// CallPort is the VSOCK port on which the host takes streams out of enclaves.
const CallPort = 1025

// MaxName is the longest name that a Call may have, in bytes: a DNS name in text
// form without the dot at its end (RFC 1035, section 2.3.4).
const MaxName = 253

// ErrCall reports bytes that are no Call, and a Call that cannot be written. Where
// the stream's own bytes begin is not known then: it must be closed.
var ErrCall = errors.New("stream: not a call")

// A Call is how an enclave asks the host for a connection to the outside, before
// any other byte of the stream. On the wire, all numbers big-endian:
//
//	 0       4    5    6      8          10  11        11+n
//	+-------+----+----+------+----------+---+---------+
//	|"CALL" | 1  |kind| port | patience | n | address |
//	+-------+----+----+------+----------+---+---------+
//	          │    │             │             1: 4 bytes of IPv4
//	          │    │             │             3: a name, n bytes
//	          │    │             │             4: 16 bytes of IPv6
//	          │    │             └ milliseconds, 0: as long as the host does by itself
//	          │    └ as SOCKS5 has it (RFC 1928, section 5)
//	          └ version
//
// The host answers with a Reply.
type Call struct {
	Addr netip.Addr // where to; not valid if Name says it
	Name string     // a name that the host resolves, letters, digits, '-', '_' and dots; empty if Addr says it
	Port uint16     // not 0
	// Patience is how long the host may try, up to MaxPatience. It counts in
	// milliseconds; 0 leaves it to the host.
	Patience time.Duration
}

// MaxPatience is what Patience is cut at.
const MaxPatience = 65535 * time.Millisecond

const (
	callMagic   = "CALL"
	callVersion = 1
	callHead    = 11
	kindIPv4    = 1
	kindName    = 3
	kindIPv6    = 4
)

// String is the destination as net.Dial takes it.
func (c Call) String() string {
	host := c.Name
	if host == "" {
		host = c.Addr.String()
	}
	return net.JoinHostPort(host, strconv.Itoa(int(c.Port)))
}

// Append appends the record to dst. It fails with ErrCall, and appends nothing, if
// the call names no destination, or one that ReadCall would not take.
func (c Call) Append(dst []byte) ([]byte, error) {
	kind, addr := byte(kindName), c.Addr.Unmap()
	switch {
	case c.Port == 0:
		return dst, fmt.Errorf("%w: port 0", ErrCall)
	case c.Name != "":
		if !isName(c.Name) {
			return dst, fmt.Errorf("%w: %q is no name", ErrCall, c.Name)
		}
	case addr.Zone() != "":
		return dst, fmt.Errorf("%w: %s has a zone", ErrCall, addr)
	case addr.Is4():
		kind = kindIPv4
	case addr.Is6():
		kind = kindIPv6
	default:
		return dst, fmt.Errorf("%w: no destination", ErrCall)
	}
	dst = append(append(dst, callMagic...), callVersion, kind)
	dst = binary.BigEndian.AppendUint16(dst, c.Port)
	patience := min(max(c.Patience, 0), MaxPatience)
	if patience > 0 {
		patience = max(patience, time.Millisecond) // 0 would be more, not less
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(patience/time.Millisecond))
	switch kind {
	case kindIPv4:
		b := addr.As4()
		return append(append(dst, byte(len(b))), b[:]...), nil
	case kindIPv6:
		b := addr.As16()
		return append(append(dst, byte(len(b))), b[:]...), nil
	}
	return append(append(dst, byte(len(c.Name))), c.Name...), nil
}

// isName accepts what a resolver may be asked, and what may stand in a log:
// labels of letters, digits, '-' and '_', of at most 63 bytes.
func isName(name string) bool {
	if name == "" || len(name) > MaxName {
		return false
	}
	label := 0
	for i := range len(name) {
		switch b := name[i]; {
		case b == '.':
			if label == 0 {
				return false
			}
			label = 0
			continue
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9', b == '-', b == '_':
		default:
			return false
		}
		if label++; label > 63 {
			return false
		}
	}
	return label > 0
}

// ReadCall reads one Call from r, and not a byte behind it. The error is io.EOF if
// the stream ended before its first byte, ErrCall if the bytes are wrong,
// io.ErrUnexpectedEOF if they end, or r's own. After any of them the stream must
// be closed.
func ReadCall(r io.Reader) (Call, error) {
	head := make([]byte, callHead, callHead+64)
	if _, err := io.ReadFull(r, head); err != nil {
		return Call{}, err
	}
	kind, size := head[5], int(head[10])
	switch {
	case string(head[:4]) != callMagic:
		return Call{}, fmt.Errorf("%w: it does not begin as one", ErrCall)
	case head[4] != callVersion:
		return Call{}, fmt.Errorf("%w: version %d, known is %d", ErrCall, head[4], callVersion)
	case kind == kindIPv4 && size != 4, kind == kindIPv6 && size != 16, kind == kindName && size == 0:
		return Call{}, fmt.Errorf("%w: %d bytes of address of kind %d", ErrCall, size, kind)
	case kind != kindIPv4 && kind != kindIPv6 && kind != kindName:
		return Call{}, fmt.Errorf("%w: address of kind %d", ErrCall, kind)
	}
	c := Call{
		Port:     binary.BigEndian.Uint16(head[6:]),
		Patience: time.Duration(binary.BigEndian.Uint16(head[8:])) * time.Millisecond,
	}
	address := append(head, make([]byte, size)...)[callHead:]
	if _, err := io.ReadFull(r, address); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return Call{}, err
	}
	if kind == kindName {
		c.Name = string(address)
	} else {
		addr, _ := netip.AddrFromSlice(address) // of a size that it takes
		c.Addr = addr.Unmap()
	}
	if c.Port == 0 || (kind == kindName && !isName(c.Name)) {
		return Call{}, fmt.Errorf("%w: %q is no destination", ErrCall, c.String())
	}
	return c, nil
}
