package revproxy

import (
	"bytes"
	"errors"
	"strconv"
	"strings"

	"github.com/corridor-enclave/corridor/revproxy/head"
)

// errNotStrict reports bytes that readers of HTTP/1 may understand differently.
// net/http answers it with 400, as any error that is not the network's.
var errNotStrict = errors.New("revproxy: the message can be understood in more than one way")

// A strictScanner follows the messages on a connection far enough to find the line
// ends and framing fields of each. Its zero value is at the beginning.
//
//	   ┌────────── no body, or the body's last byte ─────────┐
//	   ▼                                                     │
//	begin ──► lines of the head ──empty line──► sized, or chunked
//	                 │ HTTP/2's preface, or the proxy switches protocols
//	                 └──► unwatched
type strictScanner struct {
	step   strictStep
	empty  bool   // an empty line was passed over
	line   []byte // what has come of the line; as long as the server reads on
	lines  int    // of the head, so far
	left   int64  // of a body with a length
	chunks head.Chunks
	into   []byte // what chunks writes, and nobody reads

	old     bool // HTTP/1.0
	length  string
	codings int
}

type strictStep uint8

const (
	strictBegin strictStep = iota
	strictSkip             // after the CR of an empty line
	strictLines
	strictSized
	strictChunked
	strictUnwatched
)

// scan looks at bytes in the order in which they came. It takes an empty line before
// a request out of them, and returns how many are left. Those behind bad ones are not.
func (s *strictScanner) scan(p []byte) (kept int, bad bool) {
	for i := 0; i < len(p); {
		n, drop, err := s.advance(p[i:])
		if !drop {
			kept += copy(p[kept:], p[i:i+n])
		}
		if err != nil {
			return kept, true
		}
		i += n
	}
	return kept, false
}

// advance looks at some bytes of p, at least one in two calls, and says whether they are
// passed over. With an error they are those before what must not be.
func (s *strictScanner) advance(p []byte) (n int, drop bool, err error) {
	switch s.step {
	case strictBegin:
		if p[0] == '\r' && !s.empty {
			s.step = strictSkip
			return 1, true, nil
		}
		*s = strictScanner{step: strictLines, line: s.line[:0], into: s.into, chunks: s.chunks}
		return 0, false, nil
	case strictSkip:
		if p[0] != '\n' {
			return 0, false, errNotStrict
		}
		s.step, s.empty = strictBegin, true
		return 1, true, nil
	case strictLines:
		n, err = s.readLine(p)
		return n, false, err
	case strictSized:
		n = int(min(int64(len(p)), s.left))
		if s.left -= int64(n); s.left == 0 {
			s.begin()
		}
		return n, false, nil
	case strictChunked:
		s.into, n, err = s.chunks.Copy(s.into[:0], p)
		switch {
		case err != nil:
			n--
		case s.chunks.Done():
			s.begin()
		}
		return n, false, err
	}
	return len(p), false, nil
}

func (s *strictScanner) begin() { s.step, s.empty = strictBegin, false }

// readLine collects a line of the head.
func (s *strictScanner) readLine(p []byte) (int, error) {
	line, _, ended := bytes.Cut(p, []byte("\n"))
	s.line = append(s.line, line...)
	if !ended {
		return len(p), nil
	}
	whole, ok := bytes.CutSuffix(s.line, []byte("\r"))
	if !ok {
		return len(line), errNotStrict
	}
	n := len(line) + 1
	s.line = s.line[:0]
	s.lines++
	switch {
	case s.lines == 1 && string(whole) == "PRI * HTTP/2.0":
		s.step = strictUnwatched
	case s.lines == 1:
		s.old = bytes.HasSuffix(whole, []byte(" HTTP/1.0"))
	case len(whole) == 0:
		if s.judge() != nil {
			return len(line), errNotStrict // the head does not end
		}
	default:
		return n, s.field(whole)
	}
	return n, nil
}

// field takes down what frames the message.
func (s *strictScanner) field(line []byte) error {
	name, value, _ := bytes.Cut(line, []byte(":"))
	switch head.KindOf(name) {
	case head.ContentLength:
		v := strings.Trim(string(value), " \t")
		if s.length != "" && s.length != v {
			return errNotStrict
		}
		s.length = v
	case head.Coding:
		s.codings++
	}
	return nil
}

// judge decides at the end of the head what follows it. What net/http does not take
// ends the connection, so it does not matter what would follow.
func (s *strictScanner) judge() error {
	if s.codings > 0 && (s.length != "" || s.old) {
		return errNotStrict
	}
	switch {
	case s.codings > 0:
		s.chunks.Reset()
		s.step = strictChunked
	default:
		if s.left, _ = strconv.ParseInt(s.length, 10, 64); s.left > 0 {
			s.step = strictSized
		} else {
			s.begin()
		}
	}
	return nil
}
