package route

import (
	"encoding/binary"
	"fmt"
)

// What is needed of TLS (RFC 8446, sections 4 and 5.1; RFC 6066, section 3):
//
//	record      | 22 | version 2 | length 2 | fragment |   as many as it takes
//	handshake   |  1 | length 3 |  version 2, random 32, session id <1>,
//	                               cipher suites <2>, compression <1>, extensions <2>
//	extension   | type 2 | data <2> |
//	server_name | list <2> of | type 1 | name <2> |
//
// <n> is a length of n bytes with as many bytes behind it.
const (
	recordHandshake     = 22
	recordHead          = 5
	maxFragment         = 1 << 14
	helloClient         = 1
	handshakeHead       = 4
	versionAndRandom    = 2 + 32
	extensionServerName = 0
	nameHost            = 0
)

// serverName returns the SNI of a ClientHello that begins said, empty if it has
// none, or not ok if it is not complete.
func serverName(said []byte) (name string, ok bool, err error) {
	message, complete, err := handshake(said)
	if err != nil || !complete {
		return "", false, err
	}
	c := cursor{rest: message}
	c.skip(versionAndRandom)
	c.vector(1) // session id
	c.vector(2) // cipher suites
	c.vector(1) // compression methods
	if len(c.rest) == 0 && !c.short {
		return "", true, nil // TLS 1.2 without any extension
	}
	extensions := cursor{rest: c.vector(2)}
	for len(extensions.rest) > 0 && !extensions.short {
		kind := extensions.number(2)
		data := cursor{rest: extensions.vector(2)}
		if kind == extensionServerName && !extensions.short {
			return hostName(data)
		}
	}
	if c.short || extensions.short {
		return "", false, fmt.Errorf("%w: malformed ClientHello", ErrNoName)
	}
	return "", true, nil
}

func hostName(data cursor) (string, bool, error) {
	list := cursor{rest: data.vector(2), short: data.short}
	for len(list.rest) > 0 && !list.short {
		kind := list.number(1)
		name := list.vector(2)
		if kind == nameHost && !list.short {
			return string(name), true, nil
		}
	}
	return "", false, fmt.Errorf("%w: malformed server name", ErrNoName)
}

// handshake puts the fragments of the first handshake message together, and
// returns its body once it is complete.
func handshake(said []byte) (body []byte, complete bool, err error) {
	var message []byte
	for {
		if len(said) < recordHead {
			return nil, false, nil
		}
		length := int(binary.BigEndian.Uint16(said[3:]))
		if said[0] != recordHandshake || said[1] != 3 || length == 0 || length > maxFragment {
			return nil, false, fmt.Errorf("%w: not a TLS handshake", ErrNoName)
		}
		fragment := said[recordHead:min(recordHead+length, len(said))]
		if message == nil {
			message = fragment[:len(fragment):len(fragment)] // most are one fragment: no copy
		} else {
			message = append(message, fragment...)
		}
		if len(message) >= handshakeHead {
			size := int(message[1])<<16 | int(message[2])<<8 | int(message[3])
			switch {
			case message[0] != helloClient:
				return nil, false, fmt.Errorf("%w: not a ClientHello", ErrNoName)
			case size > MaxPeek:
				return nil, false, fmt.Errorf("%w: a ClientHello of %d bytes", ErrNoName, size)
			case len(message) >= handshakeHead+size:
				return message[handshakeHead : handshakeHead+size], true, nil
			}
		}
		if len(said) < recordHead+length {
			return nil, false, nil
		}
		said = said[recordHead+length:]
	}
}

// A cursor reads fields. After one that did not fit it is short, and reads
// nothing more.
type cursor struct {
	rest  []byte
	short bool
}

func (c *cursor) take(n int) []byte {
	if c.short || n > len(c.rest) {
		c.short, c.rest = true, nil
		return nil
	}
	taken := c.rest[:n]
	c.rest = c.rest[n:]
	return taken
}

func (c *cursor) skip(n int) { c.take(n) }

// number reads n bytes, big-endian.
func (c *cursor) number(n int) int {
	v := 0
	for _, b := range c.take(n) {
		v = v<<8 | int(b)
	}
	return v
}

// vector reads bytes behind their length, which has n bytes.
func (c *cursor) vector(n int) []byte { return c.take(c.number(n)) }
