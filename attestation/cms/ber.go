package cms

import "errors"

// Tags of X.690, section 8.1.2, and of RFC 5652; those of one byte are all.
const (
	tagEnd         = 0x00
	tagInteger     = 0x02
	tagOctetString = 0x04
	tagNull        = 0x05
	tagOID         = 0x06
	tagSequence    = 0x30
	tagSet         = 0x31
	tagContext0    = 0xa0 // constructed; without this bit below: primitive
	tagContext1    = 0xa1
	tagContext2    = 0xa2
	constructedBit = 0x20
)

const (
	// maxDepth is how deep elements may nest: eight levels are used.
	maxDepth = 16
	// indefinite is the length octet of an element that an end marks.
	indefinite = 0x80
	// maxLengthOctets is enough for MaxSize.
	maxLengthOctets = 3
)

var (
	errCut    = errors.New("cut off")
	errTag    = errors.New("tag of several bytes")
	errEnd    = errors.New("end where nothing ends")
	errLength = errors.New("length that is not in its shortest form")
	errDepth  = errors.New("nested too deep")
	errForm   = errors.New("primitive of indefinite length")
)

// An element is one value of BER:
//
//	tag | length 00-7f                    | content
//	tag | 81 length, 82 length length ... | content
//	tag | 80 | element element ...        | 00 00       constructed only
type element struct {
	tag      byte
	content  []byte    // of a primitive one
	children []element // of a constructed one
}

// parseElement takes one element off the front of b.
func parseElement(b []byte, depth int) (e element, rest []byte, err error) {
	switch {
	case depth > maxDepth:
		return e, nil, errDepth
	case len(b) < 2:
		return e, nil, errCut
	case b[0] == tagEnd:
		return e, nil, errEnd
	case b[0]&0x1f == 0x1f:
		return e, nil, errTag
	}
	e.tag = b[0]
	if b[1] == indefinite {
		if e.tag&constructedBit == 0 {
			return e, nil, errForm
		}
		rest, err = e.parseUntilEnd(b[2:], depth)
		return e, rest, err
	}
	length, rest, err := parseLength(b[1:])
	if err != nil {
		return e, nil, err
	}
	if length > len(rest) {
		return e, nil, errCut
	}
	content := rest[:length]
	rest = rest[length:]
	if e.tag&constructedBit == 0 {
		e.content = content
		return e, rest, nil
	}
	for len(content) > 0 {
		var child element
		if child, content, err = parseElement(content, depth+1); err != nil {
			return e, nil, err
		}
		e.children = append(e.children, child)
	}
	return e, rest, nil
}

func (e *element) parseUntilEnd(b []byte, depth int) (rest []byte, err error) {
	for {
		if len(b) >= 2 && b[0] == tagEnd && b[1] == 0 {
			return b[2:], nil
		}
		var child element
		if child, b, err = parseElement(b, depth+1); err != nil {
			return nil, err
		}
		e.children = append(e.children, child)
	}
}

func parseLength(b []byte) (length int, rest []byte, err error) {
	if b[0] < indefinite {
		return int(b[0]), b[1:], nil
	}
	octets := int(b[0] &^ indefinite)
	if octets > maxLengthOctets || octets > len(b)-1 {
		return 0, nil, errCut
	}
	for _, octet := range b[1 : 1+octets] {
		length = length<<8 | int(octet)
	}
	if length < indefinite || b[1] == 0 {
		return 0, nil, errLength
	}
	return length, b[1+octets:], nil
}
