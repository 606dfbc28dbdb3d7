package head

import (
	"bytes"
	"errors"
)

// ErrChunks reports a chunked body that does not follow RFC 9112 section 7.1, or
// whose trailers or extensions are too long. Where it ends is not known.
var ErrChunks = errors.New("head: malformed chunks")

// maxExtra bounds the extensions of one chunk, and a body's trailers.
const maxExtra = 4 << 10

// Chunks follows a chunked body and copies it, in the same chunks, without what a
// proxy does not pass on: extensions, and trailers that frame, route, or say where
// a message comes from. Its zero value is at the beginning of a body.
//
//	  ┌──────────────────────── the chunk's last byte ─────────────────────────┐
//	  ▼                                                                        │
//	size ──;──► extension ──CR──► line end ──LF──► data ──► data CR ──► data LF┘
//	  └────────────CR────────────────┘  └─size 0──► trailer lines ──empty──► done
type Chunks struct {
	step   step
	digits int
	left   uint64 // of the chunk
	extra  int    // bytes of the extension, or of all trailers
	named  bool   // the extension's semicolon was there
	line   []byte // a trailer line that is not complete
}

type step uint8

const (
	inSize step = iota
	inExtension
	atLineEnd
	inData
	atDataCR
	atDataLF
	inTrailers
	done
)

// Reset goes back to the beginning of a body.
func (c *Chunks) Reset() { *c = Chunks{line: c.line[:0]} }

// Done reports whether the body has ended.
func (c *Chunks) Done() bool { return c.step == done }

// Trailed reports whether there were trailers, once the body has ended.
func (c *Chunks) Trailed() bool { return c.extra > len("\r\n") }

// Copy appends to dst what src holds of the body, and returns how many bytes of src
// belong to it: fewer than all only if the body has ended. After ErrChunks the
// sender cannot be understood any more.
func (c *Chunks) Copy(dst, src []byte) ([]byte, int, error) {
	i := 0
	for i < len(src) && c.step != done {
		if c.step == inData {
			n := len(src) - i
			if uint64(n) >= c.left {
				n = int(c.left)
				c.step = atDataCR
			}
			dst = append(dst, src[i:i+n]...)
			c.left -= uint64(n)
			i += n
			continue
		}
		b := src[i]
		i++
		ok := false
		switch c.step {
		case inSize:
			dst, ok = c.size(dst, b)
		case inExtension:
			dst, ok = c.extension(dst, b)
		case atLineEnd:
			dst, ok = append(dst, b), b == '\n'
			c.begin()
		case atDataCR:
			dst, ok = append(dst, b), b == '\r'
			c.step = atDataLF
		case atDataLF:
			dst, ok = append(dst, b), b == '\n'
			c.step, c.digits = inSize, 0
		case inTrailers:
			dst, ok = c.trailer(dst, b)
		}
		if !ok {
			return dst, i, ErrChunks
		}
	}
	return dst, i, nil
}

// size reads a byte of the chunk's size.
func (c *Chunks) size(dst []byte, b byte) ([]byte, bool) {
	switch {
	case hex(b):
		c.left = c.left<<4 | uint64(digit(b))
		c.digits++
		return append(dst, b), c.digits < 16
	case c.digits == 0:
		return dst, false
	case b == '\r':
		c.step = atLineEnd
		return append(dst, b), true
	}
	c.step, c.extra, c.named = inExtension, 0, b == ';'
	return dst, c.named || blank(b)
}

// digit is the value of a hexadecimal digit.
func digit(b byte) byte {
	if b <= '9' {
		return b - '0'
	}
	return lower(b) - 'a' + 10
}

// extension leaves a byte of an extension out.
func (c *Chunks) extension(dst []byte, b byte) ([]byte, bool) {
	if b == '\r' {
		c.step = atLineEnd
		return append(dst, b), true
	}
	c.extra++
	if !c.named {
		c.named = b == ';'
		return dst, (c.named || blank(b)) && c.extra <= maxExtra
	}
	return dst, (b >= ' ' || b == '\t') && c.extra <= maxExtra
}

// begin begins with what follows the line of a size.
func (c *Chunks) begin() {
	c.step = inData
	if c.left == 0 {
		c.step, c.extra = inTrailers, 0
	}
}

// trailer collects lines, and passes on those that may be.
func (c *Chunks) trailer(dst []byte, b byte) ([]byte, bool) {
	c.line = append(c.line, b)
	c.extra++
	switch {
	case b != '\n':
		return dst, c.extra <= maxExtra
	case string(c.line) == "\r\n":
		c.step = done
		return append(dst, c.line...), true
	case !bytes.HasSuffix(c.line, []byte("\r\n")):
		return dst, false
	}
	f, ok := parseField(c.line, 0, len(c.line))
	if ok && f.Kind.MayTrail() {
		dst = append(dst, c.line...)
	}
	c.line = c.line[:0]
	return dst, ok
}

// MayTrail reports whether a field of this kind is passed on as a trailer. What
// frames or routes a message has no place there (RFC 9110 section 6.5.1).
func (k Kind) MayTrail() bool {
	return !k.OfHop() && k != Host && k != ContentLength && k != Origin
}
