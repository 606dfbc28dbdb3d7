package head

import "bytes"

// A Response is a simple head of a final answer.
type Response struct {
	Fields
	// Status is the status code, 200 to 599.
	Status int
	// Size is the number of bytes of the head, the empty line included.
	Size int
	// Line is the number of bytes of the status line, CR LF included.
	Line int
	// Length is the number of bytes of the body, -1 if it comes in chunks.
	Length int64
	// Last says that the app closes the connection behind the answer.
	Last bool
	// Dated says that there is a Date.
	Dated bool
}

// Parse reads the head at the beginning of b, of an answer to a request whose
// answer has a body, or not if bodyless.
//
// Simple is a final status of HTTP/1.1, or of HTTP/1.0 with a length, whose body
// ends by one Content-Length, by chunks, or has none by its status; and in
// Connection nothing but keep-alive, close and upgrade, which changes nothing
// here: who did not ask is not upgraded.
func (r *Response) Parse(b []byte, bodyless bool) Verdict {
	size, v := end(b)
	if v != Simple {
		return v
	}
	b = b[:size]
	r.Size = size
	line, _, _ := bytes.Cut(b, []byte("\r\n"))
	r.Line = len(line) + 2
	minor, ok := r.first(line)
	if !ok || !r.parse(b, r.Line) || !r.judge(b, minor, bodyless) {
		return Other
	}
	return Simple
}

// first reads the status line.
func (r *Response) first(line []byte) (minor byte, ok bool) {
	const form = "HTTP/1.1 200 "
	if len(line) < len(form) || string(line[:7]) != form[:7] || line[8] != ' ' || line[12] != ' ' {
		return 0, false
	}
	minor = line[7]
	status, ok := number(line[9:12])
	r.Status = int(status)
	for _, c := range line {
		if c < ' ' && c != '\t' || c == 0x7f {
			return 0, false
		}
	}
	return minor, ok && minor <= '1' && minor >= '0' && status >= 200 && status <= 599
}

// judge looks at the fields that frame the message.
func (r *Response) judge(b []byte, minor byte, bodyless bool) bool {
	r.Length, r.Last, r.Dated = 0, minor == '0', false
	lengths, codings, connections := 0, 0, 0
	for _, f := range r.All() {
		ok := true
		switch f.Kind {
		case ContentLength:
			lengths++
			r.Length, ok = number(f.Value(b))
		case Coding:
			codings++
			ok = equal(f.Value(b), "chunked")
		case Connection:
			connections++
			ok = r.connection(f.Value(b))
		case Date:
			r.Dated = true
		case Trailer:
			ok = false
		}
		if !ok {
			return false
		}
	}
	if lengths+codings > 1 || connections > 1 || codings > 0 && minor == '0' {
		return false
	}
	return r.frame(lengths, codings, bodyless)
}

// frame decides where the body ends.
func (r *Response) frame(lengths, codings int, bodyless bool) bool {
	switch {
	case r.Status == 204:
		return lengths+codings == 0
	case r.Status == 304:
		r.Length = 0
		return codings == 0
	case bodyless:
		r.Length = 0
	case codings > 0:
		r.Length = -1
	case lengths == 0:
		return false // it ends with the connection
	}
	return true
}

// connection reads the value of Connection, a list.
func (r *Response) connection(value []byte) bool {
	for len(value) > 0 {
		var item []byte
		item, value, _ = bytes.Cut(value, []byte(","))
		switch item = bytes.Trim(item, " \t"); {
		case equal(item, "close"):
			r.Last = true
		case len(item) == 0, equal(item, "keep-alive"), equal(item, "upgrade"):
		default:
			return false
		}
	}
	return true
}
