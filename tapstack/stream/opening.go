// Package stream is how a stream of the stream road begins and how it ends: the
// PROXY protocol header that names the client of a stream into an enclave, the
// call and the reply that open one out of it, and the difference between an end
// and a reset, which AF_VSOCK does not know. It dials nothing and accepts
// nothing: streams and egress do on the host, inbound and egress in the enclave.
package stream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/netip"
)

// Port is the VSOCK port on which an enclave's front takes streams.
const Port = 1443

// Limits of what a header may say, in bytes.
const (
	// MaxOpening is the longest header that is accepted: the signature's 16, the
	// largest block of addresses (of unix sockets, 216) and room for what other
	// senders add. Ours has at most 449.
	MaxOpening = 1024
	// MaxService and MaxID are what is kept of the two texts; the latter is the
	// specification's limit.
	MaxService = 255
	MaxID      = 128
)

// ErrOpening reports bytes that are no header, or one that is too long. Where the
// stream's own bytes begin is not known then: it must be closed.
var ErrOpening = errors.New("stream: not a PROXY v2 header")

// An Opening is what the host says of a client before the client's own bytes. The
// enclave has nothing but the host's word for it.
//
// On the wire it is the header of the PROXY protocol, version 2 (HAProxy's
// proxy-protocol.txt, section 2.2), all numbers big-endian:
//
//	 0             12   13   14        16
//	+-------------+----+----+---------+-----------+------+-----+------+
//	| signature   |0x2c| fam|   len   | addresses | TLV  | ... | TLV  |
//	+-------------+----+----+---------+-----------+------+-----+------+
//	               │    │              client, local (12 or 36 bytes)
//	               │    └ 0x11 TCP over IPv4, 0x21 over IPv6, 0x31 unix, 0x00 not told
//	               └ c: 1 PROXY, 0 LOCAL (the host speaks for itself: no client)
//
//	+------+---------+----------------+   0x03 CRC-32C of the header
//	| type |   len   | len bytes      |   0x05 ID
//	+------+---------+----------------+   0xe0 Service
//	 0      1         3
type Opening struct {
	Client  netip.AddrPort // who connected; not valid if that is not told
	Local   netip.AddrPort // where the client connected to, valid with Client
	Service string         // the published address, as the host's operator wrote it
	ID      string         // of this connection, unique as far as the host goes
}

// The fields of the header.
const (
	headSize                 = 16
	version2                 = 0x20
	commandLocal             = version2
	commandProxy             = version2 | 1
	familyNone               = 0x00
	familyTCP4               = 0x11
	familyTCP6               = 0x21
	familyUnix               = 0x31
	typeChecksum             = 0x03
	typeID                   = 0x05
	typeService              = 0xe0 // the first of the types that are free for use
	tlvHead                  = 3
	size4, size6, sizeUnix   = 12, 36, 216
	signature                = "\r\n\r\n\x00\r\nQUIT\n"
	checksumSize             = 4
	portsSize, addr4, addr16 = 4, 4, 16
)

// Append appends the header to dst. Texts are cut at their limits.
func (o Opening) Append(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, signature...)
	client, local := o.Client.Addr().Unmap(), o.Local.Addr().Unmap()
	switch {
	case !client.IsValid() || !local.IsValid():
		dst = append(dst, commandProxy, familyNone, 0, 0)
	case client.Is4() && local.Is4():
		dst = append(dst, commandProxy, familyTCP4, 0, 0)
		dst = append(append(dst, client.AsSlice()...), local.AsSlice()...)
		dst = appendPorts(dst, o)
	default:
		dst = append(dst, commandProxy, familyTCP6, 0, 0)
		from, to := client.As16(), local.As16() // an IPv4 address is mapped
		dst = append(append(dst, from[:]...), to[:]...)
		dst = appendPorts(dst, o)
	}
	dst = appendTLV(dst, typeID, o.ID[:min(len(o.ID), MaxID)])
	dst = appendTLV(dst, typeService, o.Service[:min(len(o.Service), MaxService)])
	binary.BigEndian.PutUint16(dst[start+headSize-2:], uint16(len(dst)-start-headSize))
	return dst
}

func appendPorts(dst []byte, o Opening) []byte {
	dst = binary.BigEndian.AppendUint16(dst, o.Client.Port())
	return binary.BigEndian.AppendUint16(dst, o.Local.Port())
}

// appendTLV leaves an empty text out.
func appendTLV(dst []byte, kind byte, text string) []byte {
	if text == "" {
		return dst
	}
	dst = binary.BigEndian.AppendUint16(append(dst, kind), uint16(len(text)))
	return append(dst, text...)
}

// ReadOpening reads one header from r, and not a byte behind it. The error is
// io.EOF if the stream ended before its first byte, ErrOpening if the bytes are
// wrong, io.ErrUnexpectedEOF if they end, or r's own. After any of them the stream
// must be closed.
func ReadOpening(r io.Reader) (Opening, error) {
	header := make([]byte, headSize, headSize+size6+64) // most are not longer
	if n, err := io.ReadFull(r, header); err != nil {
		if n > 0 && string(header[:min(n, len(signature))]) != signature[:min(n, len(signature))] {
			return Opening{}, fmt.Errorf("%w: wrong signature", ErrOpening)
		}
		return Opening{}, err
	}
	if string(header[:len(signature)]) != signature {
		return Opening{}, fmt.Errorf("%w: wrong signature", ErrOpening)
	}
	n := int(binary.BigEndian.Uint16(header[headSize-2:]))
	if headSize+n > MaxOpening {
		return Opening{}, fmt.Errorf("%w: %d bytes, at most %d are taken", ErrOpening, headSize+n, MaxOpening)
	}
	header = append(header, make([]byte, n)...)
	if _, err := io.ReadFull(r, header[headSize:]); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return Opening{}, err
	}
	return parse(header)
}

// parse reads a header that is complete and has the signature.
func parse(header []byte) (o Opening, err error) {
	command, family, rest := header[12], header[13], header[headSize:]
	if command != commandProxy && command != commandLocal {
		return o, fmt.Errorf("%w: version and command are %#02x", ErrOpening, command)
	}
	size := 0
	switch family {
	case familyNone:
	case familyTCP4:
		size = size4
	case familyTCP6:
		size = size6
	case familyUnix:
		size = sizeUnix
	default:
		return o, fmt.Errorf("%w: family %#02x is not of a stream", ErrOpening, family)
	}
	if command == commandLocal && len(rest) < size {
		return Opening{}, nil // its block of addresses means nothing, whatever its size
	}
	if len(rest) < size {
		return o, fmt.Errorf("%w: %d bytes for addresses of %d", ErrOpening, len(rest), size)
	}
	if command == commandProxy {
		o.Client, o.Local = addresses(family, rest[:size])
	}
	if err := o.parseTLVs(header, rest[size:]); err != nil {
		return Opening{}, err
	}
	return o, nil
}

// addresses reads the block; unix sockets have no address that says who it is.
func addresses(family byte, block []byte) (client, local netip.AddrPort) {
	size := addr16
	switch family {
	case familyTCP4:
		size = addr4
	case familyTCP6:
	default:
		return client, local
	}
	ports := block[2*size : 2*size+portsSize]
	from, _ := netip.AddrFromSlice(block[:size]) // of a size that it takes
	to, _ := netip.AddrFromSlice(block[size : 2*size])
	return netip.AddrPortFrom(from.Unmap(), binary.BigEndian.Uint16(ports)),
		netip.AddrPortFrom(to.Unmap(), binary.BigEndian.Uint16(ports[2:]))
}

// parseTLVs reads what follows the addresses. Types that mean nothing to us are
// passed over, as the specification asks.
func (o *Opening) parseTLVs(header, rest []byte) error {
	for len(rest) > 0 {
		if len(rest) < tlvHead || len(rest)-tlvHead < int(binary.BigEndian.Uint16(rest[1:])) {
			return fmt.Errorf("%w: a TLV is longer than the header", ErrOpening)
		}
		value := rest[tlvHead : tlvHead+int(binary.BigEndian.Uint16(rest[1:]))]
		kind, limit, text := rest[0], 0, (*string)(nil)
		switch kind {
		case typeID:
			limit, text = MaxID, &o.ID
		case typeService:
			limit, text = MaxService, &o.Service
		case typeChecksum:
			if err := checkSum(header, value); err != nil {
				return err
			}
		}
		if text != nil {
			if len(value) > limit {
				return fmt.Errorf("%w: TLV %#02x has %d bytes, at most %d are taken", ErrOpening, kind, len(value), limit)
			}
			*text = string(value)
		}
		rest = rest[tlvHead+len(value):]
	}
	return nil
}

// checkSum compares the CRC-32C of the header, for which its own place counts as
// zeros. sum is a part of header and is zeroed.
func checkSum(header, sum []byte) error {
	if len(sum) != checksumSize {
		return fmt.Errorf("%w: a checksum of %d bytes", ErrOpening, len(sum))
	}
	said := binary.BigEndian.Uint32(sum)
	clear(sum)
	if crc32.Checksum(header, crc32.MakeTable(crc32.Castagnoli)) != said {
		return fmt.Errorf("%w: wrong checksum", ErrOpening)
	}
	return nil
}
