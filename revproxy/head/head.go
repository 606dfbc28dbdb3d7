// Package head reads the heads of HTTP/1.1 messages where they lie, without
// allocating, and only those about which no two readers can disagree. It refuses
// nothing: what is not Simple is for net/http to judge. It moves no bytes and
// makes no message; revproxy does.
package head

import "bytes"

// A Verdict says what a piece of a stream begins with.
type Verdict uint8

// The verdicts.
const (
	Incomplete Verdict = iota // the end of the head is not there
	Simple                    // a head that means what it seems to mean
	Other                     // anything else: valid, invalid, or too long
)

// MaxFields is how many fields a simple head may have.
const MaxFields = 128

// MaxBytes is how long a simple head may be: positions in it are 16 bits wide.
const MaxBytes = 1<<16 - 1

// A Field is one field line, as positions in the head:
//
//	Accept:  */* \r\n
//	│     │  │  │   │
//	start │  from to end
//	      colon
type Field struct {
	start, colon, from, to, end uint16
	// Kind is what the field means to a proxy.
	Kind Kind
}

// Name returns the field's name, as it is written in the head b.
func (f Field) Name(b []byte) []byte { return b[f.start:f.colon] }

// Value returns the field's value without the white space around it.
func (f Field) Value(b []byte) []byte { return b[f.from:f.to] }

// Line returns the whole line, and whether it is in the form in which lines are
// sent: one space behind the colon, none at the end.
func (f Field) Line(b []byte) (line []byte, canonical bool) {
	return b[f.start:f.end], f.from == f.colon+2 && f.end == f.to+2
}

// Fields are the fields of one head. Its zero value is ready.
type Fields struct {
	list [MaxFields]Field
	n    int
}

// All returns the fields in the order in which they came.
func (f *Fields) All() []Field { return f.list[:f.n] }

// end finds the empty line at the end of a head, and returns what is behind it.
func end(b []byte) (size int, v Verdict) {
	size = behindEmptyLine(b)
	switch {
	case size == 0 && len(b) < MaxBytes:
		return 0, Incomplete
	case size == 0, size > MaxBytes:
		return 0, Other
	}
	return size, Simple
}

// behindEmptyLine returns what is behind the first line that is empty, and ends as the
// one before does; 0 if there is none. It goes from line to line: bytes.Index allocates
// what it looks for where the compiler inlines it, as it does by a profile.
func behindEmptyLine(b []byte) int {
	for at := 0; ; {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			return 0
		}
		at += i + 1
		if at >= 2 && b[at-2] == '\r' && len(b) >= at+2 && b[at] == '\r' && b[at+1] == '\n' {
			return at + 2
		}
	}
}

// parse reads the fields between start and the empty line that ends b. It reports
// whether all are simple: names are tokens, values have no control characters,
// and no line goes on in the next.
func (f *Fields) parse(b []byte, start int) bool {
	f.n = 0
	for start < len(b)-2 {
		length := bytes.IndexByte(b[start:], '\n')
		if length < 1 || b[start+length-1] != '\r' || f.n == MaxFields {
			return false
		}
		next := start + length + 1
		field, ok := parseField(b, start, next)
		if !ok {
			return false
		}
		f.list[f.n] = field
		f.n++
		start = next
	}
	return start == len(b)-2
}

// parseField reads one line, which ends in CR LF before next.
func parseField(b []byte, start, next int) (Field, bool) {
	colon := start
	for tokens[b[colon]] { // ends at the CR, if not before
		colon++
	}
	if colon == start || b[colon] != ':' {
		return Field{}, false
	}
	from, to := colon+1, next-2
	for _, c := range b[from:to] {
		if c < ' ' && c != '\t' || c == 0x7f {
			return Field{}, false
		}
	}
	for from < to && blank(b[from]) {
		from++
	}
	for from < to && blank(b[to-1]) {
		to--
	}
	return Field{
		start: uint16(start), colon: uint16(colon), from: uint16(from), to: uint16(to), end: uint16(next),
		Kind: KindOf(b[start:colon]),
	}, true
}

func blank(c byte) bool { return c == ' ' || c == '\t' }

// number reads digits alone, of a number below 10^18. What begins with a zero is
// octal to some.
func number(b []byte) (n int64, ok bool) {
	if len(b) == 0 || len(b) > 18 || len(b) > 1 && b[0] == '0' {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// equal compares b to a word in lower case without regard to case.
func equal(b []byte, word string) bool {
	if len(b) != len(word) {
		return false
	}
	for i, c := range b {
		if lower(c) != word[i] {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c | 0x20
	}
	return c
}

// tokens are the bytes of a token (RFC 9110 section 5.6.2).
var tokens = set("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")

// hosts are the bytes of a host with a port that nothing can take for anything else.
var hosts = set(".-_:[]0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")

func set(members string) (is [256]bool) {
	for i := range len(members) {
		is[members[i]] = true
	}
	return is
}
