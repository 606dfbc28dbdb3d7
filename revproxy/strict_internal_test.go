package revproxy

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"testing"
)

// FuzzStrict: a scanner finds the same heads as net/http in whatever it lets through,
// and it does not matter in which pieces the bytes come.
func FuzzStrict(f *testing.F) {
	for _, seed := range []string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;a\r\nabc\r\n0\r\nA: b\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nab\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\n",
		"POST / HTTP/1.0\r\nContent-Length: 99999999999999999999\r\n\r\n", "\r\n\r\n", "\r",
	} {
		f.Add([]byte(seed), uint8(1))
	}
	f.Fuzz(func(t *testing.T, in []byte, size uint8) {
		whole := bytes.Clone(in)
		var s strictScanner
		n, bad := s.scan(whole)
		var pieces strictScanner
		var let []byte
		badPiece := false
		for rest := bytes.Clone(in); len(rest) > 0 && !badPiece; {
			p := rest[:min(len(rest), int(size)+1)]
			rest = rest[len(p):]
			var kept int
			kept, badPiece = pieces.scan(p)
			let = append(let, p[:kept]...)
		}
		if bad != badPiece || !bytes.Equal(let, whole[:n]) {
			t.Fatalf("%q: bad is %t as a whole, %t in pieces of %d", in, bad, badPiece, int(size)+1)
		}
		if !bad && s.step == strictBegin && n > 0 {
			endsBetweenRequests(t, whole[:n])
		}
	})
}

// endsBetweenRequests has net/http read requests until it refuses one, or there are none.
func endsBetweenRequests(t *testing.T, in []byte) {
	r := bufio.NewReader(bytes.NewReader(in))
	for {
		req, err := http.ReadRequest(r)
		if err == io.EOF {
			return
		}
		if err == io.ErrUnexpectedEOF {
			t.Fatalf("%q ends within a head for net/http, and between two here", in)
		}
		if err != nil || req.ProtoMajor != 1 || req.ProtoMinor > 1 {
			return // refused, with all that follows
		}
		if _, err = io.Copy(io.Discard, req.Body); err == io.ErrUnexpectedEOF {
			t.Fatalf("%q ends within a body for net/http, and between two requests here", in)
		}
		if err != nil {
			return
		}
	}
}
