package h2

import (
	"bufio"
	"encoding/binary"
	"io"

	"golang.org/x/net/http2/hpack"
)

// maxContinuations is how many frames a header block may be spread over, besides
// those that its size takes.
const maxContinuations = 16

// readAhead is how much of small frames is read at once. Every connection has it.
const readAhead = 1 << 10

// A reader reads frames. What it returns is valid until it reads the next.
type reader struct {
	from    *bufio.Reader
	head    [headSize]byte
	payload []byte
	decoder *hpack.Decoder
	limit   uint32 // of a header list (RFC 9113 section 6.5.2)
	list    fieldList
}

// A fieldList is a header list.
type fieldList struct {
	fields    []hpack.HeaderField
	pseudo    int    // how many of them are pseudo-header fields, which come first
	left      uint32 // how much longer it may get
	truncated bool   // it was longer
	malformed bool
	ends      bool   // END_STREAM
	depends   uint32 // the stream that it depends on; 0: none (RFC 7540 section 5.3.1)
}

func newReader(from io.Reader, limit uint32) *reader {
	r := &reader{from: bufio.NewReaderSize(from, readAhead), limit: limit}
	r.decoder = hpack.NewDecoder(headerTableSize, r.field)
	r.decoder.SetMaxStringLength(int(limit))
	return r
}

// frame reads a frame. Of a stream's error, the frame was read.
func (r *reader) frame() (frameHead, []byte, error) {
	if _, err := io.ReadFull(r.from, r.head[:]); err != nil {
		return frameHead{}, nil, err
	}
	h := parseHead(r.head[:])
	if h.size > frameSize {
		return h, nil, connError(codeFrameSize)
	}
	if cap(r.payload) < h.size {
		r.payload = make([]byte, max(h.size, 512))
	}
	p := r.payload[:h.size]
	if _, err := io.ReadFull(r.from, p); err != nil {
		return h, nil, err
	}
	return h, p, h.check()
}

// next reads a frame, or HEADERS with all of its CONTINUATIONs, whose content is in
// the list then.
func (r *reader) next() (frameHead, []byte, error) {
	h, p, err := r.frame()
	if err != nil {
		return h, p, err
	}
	switch h.kind {
	case typeContinuation:
		return h, nil, connError(codeProtocol)
	case typeHeaders:
		return h, nil, r.block(h, p)
	case typeData:
		p, err = h.unpad(p)
	}
	return h, p, err
}

// block reads a header block (RFC 9113 section 4.3). It is decoded even if nobody
// wants it, because others refer to it; but what is much too long ends the connection.
func (r *reader) block(h frameHead, p []byte) error {
	p, err := h.unpad(p)
	if err != nil {
		return err
	}
	l := &r.list
	*l = fieldList{fields: l.fields[:0], left: r.limit, ends: h.has(flagEndStream)}
	if h.has(flagPriority) {
		if len(p) < 5 {
			return connError(codeFrameSize)
		}
		l.depends = binary.BigEndian.Uint32(p) &^ (1 << 31)
		p = p[5:]
	}
	r.decoder.SetEmitEnabled(true)
	for n := 0; ; n++ {
		switch {
		case n > 0 && (l.truncated || l.malformed), len(p) > 2*int(l.left)+frameSize, n > maxContinuations+int(r.limit)/frameSize:
			return connError(codeCalm)
		}
		if _, err := r.decoder.Write(p); err != nil {
			return connError(codeCompression)
		}
		if h.has(flagEndHeaders) {
			break
		}
		next, q, err := r.frame()
		if err != nil {
			return err
		}
		if next.kind != typeContinuation || next.id != h.id {
			return connError(codeProtocol)
		}
		h.flags, p = next.flags, q
	}
	if r.decoder.Close() != nil {
		return connError(codeCompression)
	}
	if l.malformed {
		return streamError{id: h.id, code: codeProtocol}
	}
	return nil
}

// field takes a field of a block, if it may be in one (RFC 9113 section 8.2).
func (r *reader) field(f hpack.HeaderField) {
	l := &r.list
	if size := f.Size(); size > l.left {
		l.truncated, l.left = true, 0
	} else {
		l.left -= size
	}
	switch f.Name {
	case ":method", ":scheme", ":authority", ":path":
		l.malformed = l.malformed || l.pseudo < len(l.fields) || l.has(f.Name)
		l.pseudo++
	default:
		l.malformed = l.malformed || !validName(f.Name, false)
	}
	l.malformed = l.malformed || !validValue(f.Value)
	if l.malformed || l.truncated {
		r.decoder.SetEmitEnabled(false)
		return
	}
	l.fields = append(l.fields, f)
}

func (l *fieldList) has(name string) bool {
	for _, f := range l.fields {
		if f.Name == name {
			return true
		}
	}
	return false
}

// regular are the fields that are not pseudo-header fields.
func (l *fieldList) regular() []hpack.HeaderField { return l.fields[l.pseudo:] }

// validName reports whether a name is a token (RFC 9110 section 5.6.2), in which
// letters are small unless they need not be.
func validName(name string, capitals bool) bool {
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-':
		case 'A' <= c && c <= 'Z':
			if !capitals {
				return false
			}
		case c == '!', '#' <= c && c <= '\'', c == '*', c == '+', c == '.', '^' <= c && c <= '`', c == '|', c == '~':
		default:
			return false
		}
	}
	return name != ""
}

// validValue reports whether a value has no control character but tabs
// (RFC 9110 section 5.5).
func validValue(value string) bool {
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}
