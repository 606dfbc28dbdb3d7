package head_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"testing"

	"github.com/corridor-enclave/corridor/revproxy/head"
)

const get = "GET / HTTP/1.1\r\nHost: x\r\n"

func TestRequestVerdicts(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, head string
		want       head.Verdict
	}{
		{"nothing", "", head.Incomplete},
		{"a part of the method", "OPTION", head.Incomplete},
		{"no empty line", get, head.Incomplete},
		{"another protocol", "PRI * HTTP/2.0\r\n", head.Other},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03", head.Other},
		{"another method", "BREW / HTTP/1.1\r\nHost: x\r\n\r\n", head.Other},
		{"CONNECT", "CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n", head.Other},
		{"a method in lower case", "get / HTTP/1.1\r\nHost: x\r\n\r\n", head.Other},
		{"HTTP/1.0", "GET / HTTP/1.0\r\nHost: x\r\n\r\n", head.Other},
		{"LF alone", "GET / HTTP/1.1\nHost: x\n\r\n\r\n", head.Other},
		{"an empty line first", "\r\n" + get + "\r\n", head.Other},
		{"absolute form", "GET http://x/ HTTP/1.1\r\nHost: x\r\n\r\n", head.Other},
		{"an asterisk", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", head.Other},
		{"two spaces", "GET  / HTTP/1.1\r\nHost: x\r\n\r\n", head.Other},
		{"bad percent-encoding", "GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", head.Other},
		{"percent at the end", "GET /%4 HTTP/1.1\r\nHost: x\r\n\r\n", head.Other},
		{"percent in the query", "GET /?%4 HTTP/1.1\r\nHost: x\r\n\r\n", head.Simple},
		{"no host", "GET / HTTP/1.1\r\n\r\n", head.Other},
		{"an empty host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", head.Other},
		{"two hosts", get + "Host: x\r\n\r\n", head.Other},
		{"a folded line", get + "A: b\r\n c\r\n\r\n", head.Other},
		{"a space before the colon", get + "A : b\r\n\r\n", head.Other},
		{"no colon", get + "A\r\n\r\n", head.Other},
		{"an empty name", get + ": b\r\n\r\n", head.Other},
		{"NUL", get + "A: \x00\r\n\r\n", head.Other},
		{"CR alone", get + "A: b\rc\r\n\r\n", head.Other},
		{"chunks and a length", get + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", head.Other},
		{"a length and chunks", get + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", head.Other},
		{"chunks twice", get + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", head.Other},
		{"a coding in chunks", get + "Transfer-Encoding: gzip, chunked\r\n\r\n", head.Other},
		{"another coding", get + "Transfer-Encoding: identity\r\n\r\n", head.Other},
		{"chunks", get + "Transfer-Encoding: Chunked\r\n\r\n", head.Simple},
		{"two lengths", get + "Content-Length: 1\r\nContent-Length: 1\r\n\r\n", head.Other},
		{"a signed length", get + "Content-Length: +1\r\n\r\n", head.Other},
		{"a huge length", get + "Content-Length: 9999999999999999999\r\n\r\n", head.Other},
		{"Expect", get + "Expect: 100-continue\r\n\r\n", head.Other},
		{"Upgrade", get + "Upgrade: x\r\n\r\n", head.Other},
		{"Trailer", get + "Trailer: x\r\n\r\n", head.Other},
		{"TE", get + "te: trailers\r\n\r\n", head.Other},
		{"Connection with a name", get + "Connection: A\r\n\r\n", head.Other},
		{"two of Connection", get + "Connection: close\r\nConnection: close\r\n\r\n", head.Other},
		{"many fields", get + strings.Repeat("A: b\r\n", head.MaxFields) + "\r\n", head.Other},
		{"too long", get + "A: " + strings.Repeat("b", head.MaxBytes) + "\r\n\r\n", head.Other},
		{"endless", get + "A: " + strings.Repeat("b", head.MaxBytes), head.Other},
		{"an underscore is not a dash in framing", get + "Transfer_Encoding: chunked\r\n\r\n", head.Simple},
		{"everything", "POST /a?b HTTP/1.1\r\nHost: [::1]:80\r\nConnection: Keep-Alive\r\nCONTENT-LENGTH:12\r\nA:\t b \r\nB:\r\n\r\n", head.Simple},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := new(head.Request).Parse([]byte(tt.head)); got != tt.want {
				t.Errorf("%d; want %d", got, tt.want)
			}
		})
	}
}

func TestRequestParts(t *testing.T) {
	t.Parallel()
	const text = "PUT /a?b HTTP/1.1\r\nHost: x:1\r\nConnection: CLOSE\r\nContent-Length: 3\r\nX_real-IP:\t y \r\n\r\nabcGET"
	var r head.Request
	if v := r.Parse([]byte(text)); v != head.Simple {
		t.Fatalf("verdict %d", v)
	}
	if string(r.Method) != "PUT" || string(r.Target) != "/a?b" || string(r.Host) != "x:1" || r.Length != 3 || !r.Declared || !r.Close ||
		text[r.Size:] != "abcGET" || r.Bodyless() || r.Idempotent() {
		t.Errorf("%+v", r)
	}
	f := r.All()[3]
	line, canonical := f.Line([]byte(text))
	if string(f.Name([]byte(text))) != "X_real-IP" || string(f.Value([]byte(text))) != "y" || f.Kind != head.Origin || canonical || string(line) != "X_real-IP:\t y \r\n" {
		t.Errorf("field %+v, line %q, %t", f, line, canonical)
	}
}

func TestResponseVerdicts(t *testing.T) {
	t.Parallel()
	const ok = "HTTP/1.1 200 OK\r\n"
	tests := []struct {
		name, head string
		bodyless   bool
		want       head.Verdict
		length     int64
		last       bool
	}{
		{"no empty line", ok, false, head.Incomplete, 0, false},
		{"another protocol", "ICY 200 OK\r\n\r\n", false, head.Other, 0, false},
		{"informational", "HTTP/1.1 103 Early Hints\r\n\r\n", false, head.Other, 0, false},
		{"a switch", "HTTP/1.1 101 Switching Protocols\r\n\r\n", false, head.Other, 0, false},
		{"a status with a sign", "HTTP/1.1 +20 OK\r\nContent-Length: 0\r\n\r\n", false, head.Other, 0, false},
		{"a status of four digits", "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n", false, head.Other, 0, false},
		{"a control character in the reason", "HTTP/1.1 200 O\x01K\r\nContent-Length: 0\r\n\r\n", false, head.Other, 0, false},
		{"to the end of the connection", ok + "\r\n", false, head.Other, 0, false},
		{"a length and chunks", ok + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", false, head.Other, 0, false},
		{"two lengths", ok + "Content-Length: 1\r\nContent-Length: 1\r\n\r\n", false, head.Other, 0, false},
		{"another coding", ok + "Transfer-Encoding: gzip, chunked\r\n\r\n", false, head.Other, 0, false},
		{"chunks in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false, head.Other, 0, false},
		{"trailers", ok + "Transfer-Encoding: chunked\r\nTrailer: A\r\n\r\n", false, head.Other, 0, false},
		{"Connection with a name", ok + "Connection: A\r\nContent-Length: 0\r\n\r\n", false, head.Other, 0, false},
		{"no content with a length", "HTTP/1.1 204 No Content\r\nContent-Length: 1\r\n\r\n", false, head.Other, 0, false},
		{"no content", "HTTP/1.1 204 No Content\r\n\r\n", false, head.Simple, 0, false},
		{"not modified", "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", false, head.Simple, 0, false},
		{"a length", ok + "Content-Length: 7\r\nConnection: Keep-Alive, Upgrade\r\n\r\n", false, head.Simple, 7, false},
		{"the last", ok + "Content-Length: 7\r\nConnection: close\r\n\r\n", false, head.Simple, 7, true},
		{"HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 7\r\n\r\n", false, head.Simple, 7, true},
		{"chunks", ok + "Transfer-Encoding: Chunked\r\n\r\n", false, head.Simple, -1, false},
		{"of HEAD", ok + "Content-Length: 7\r\n\r\n", true, head.Simple, 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var r head.Response
			got := r.Parse([]byte(tt.head), tt.bodyless)
			if got != tt.want || got == head.Simple && (r.Length != tt.length || r.Last != tt.last) {
				t.Errorf("%d, length %d, last %t; want %d, %d, %t", got, r.Length, r.Last, tt.want, tt.length, tt.last)
			}
		})
	}
}

func TestChunks(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, body, want, rest string
		err                    error
	}{
		{"no size", "\r\n", "", "", head.ErrChunks},
		{"a size with a sign", "+1\r\n", "", "", head.ErrChunks},
		{"a size too large", "ffffffffffffffff\r\n", "", "", head.ErrChunks},
		{"LF alone behind the size", "1\nx", "", "", head.ErrChunks},
		{"data that goes on", "1\r\nxy", "", "", head.ErrChunks},
		{"data that ends in LF", "1\r\nx\n", "", "", head.ErrChunks},
		{"a trailer that is no field", "0\r\nA\r\n\r\n", "", "", head.ErrChunks},
		{"a trailer that ends in LF", "0\r\nA: b\n\r\n", "", "", head.ErrChunks},
		{"endless trailers", "0\r\n" + strings.Repeat("A: b\r\n", 2000), "", "", head.ErrChunks},
		{"a space within the size", "1 0\r\n", "", "", head.ErrChunks},
		{"an endless extension", "1;" + strings.Repeat("a", 5000), "", "", head.ErrChunks},
		{"LF in an extension", "1;a\n\r\nx\r\n", "", "", head.ErrChunks},
		{"nothing", "0\r\n\r\nrest", "0\r\n\r\n", "rest", nil},
		{"data", "3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n", "3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n", "", nil},
		{"extensions", "3 ; a=\"b\"\r\nabc\r\n0;c\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n", "", nil},
		{"trailers", "0\r\nSum: 1\r\nHost: y\r\nX-Real-IP: z\r\nContent-Length: 5\r\n\r\n", "0\r\nSum: 1\r\n\r\n", "", nil},
	}
	for _, tt := range tests {
		for _, step := range []int{1, 2, 1 << 20} {
			got, used, err := copyChunks([]byte(tt.body), step)
			if !errors.Is(err, tt.err) || err == nil && (string(got) != tt.want || tt.body[used:] != tt.rest) {
				t.Errorf("%s by %d: %q and %q left, %v; want %q and %q, %v", tt.name, step, got, tt.body[used:], err, tt.want, tt.rest, tt.err)
			}
		}
	}
}

// copyChunks copies a body in pieces, and returns how many bytes belonged to it.
func copyChunks(body []byte, step int) (out []byte, used int, err error) {
	var c head.Chunks
	for used < len(body) && !c.Done() {
		var n int
		out, n, err = c.Copy(out, body[used:min(used+step, len(body))])
		if used += n; err != nil {
			return out, used, err
		}
	}
	if !c.Done() {
		return out, used, io.ErrUnexpectedEOF
	}
	return out, used, nil
}

func TestParsingAllocatesNothing(t *testing.T) {
	b := []byte("GET /path?query HTTP/1.1\r\nHost: example.com\r\nUser-Agent: a\r\nX-Forwarded-For: b\r\nConnection: keep-alive\r\n\r\n")
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\nConnection: keep-alive, x\r\n\r\n")
	var req head.Request
	var res head.Response
	if n := testing.AllocsPerRun(100, func() { req.Parse(b); res.Parse(answer, false) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// hostBytes are of those that net/http's server accepts in Host.
const hostBytes = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-_:[]"

// FuzzRequest: what is simple is a request to net/http too, and the same one.
func FuzzRequest(f *testing.F) {
	for _, seed := range []string{
		get + "\r\n", "POST /%41?%zz#a HTTP/1.1\r\nhost: [::1]:80\r\ncontent-length: 3\r\nA:  b \r\nB_c: \xff\r\nConnection: close\r\n\r\nabcGET",
		"HEAD //x/../ HTTP/1.1\r\nHost: a_b.\r\nConnection: keep-alive\r\nProxy-Connection: x\r\nAccept:\r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
		"OPTIONS /:80 HTTP/1.1\r\nHost: x\r\nX_Forwarded_For: y\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var ours head.Request
		if ours.Parse(b) != head.Simple {
			return
		}
		reader := bufio.NewReader(bytes.NewReader(b))
		theirs, err := http.ReadRequest(reader)
		if err != nil {
			t.Fatalf("%q: net/http says %v", b, err)
		}
		if strings.Trim(theirs.Host, hostBytes) != "" || theirs.ProtoMajor != 1 || theirs.ProtoMinor != 1 || len(theirs.TransferEncoding) > 0 != (ours.Length < 0) {
			t.Fatalf("%q: net/http's server would refuse it: %+v", b, theirs)
		}
		if theirs.Method != string(ours.Method) || theirs.RequestURI != string(ours.Target) || theirs.Host != string(ours.Host) ||
			theirs.Close != ours.Close || theirs.ContentLength != ours.Length {
			t.Fatalf("%q: %+v; want as %+v", b, ours, theirs)
		}
		sameFields(t, b[:ours.Size], ours.All(), theirs.Header, "Host")
		if ours.Length < 0 {
			return // FuzzChunks is about the body
		}
		content, err := io.ReadAll(theirs.Body)
		end := int64(ours.Size) + ours.Length
		if err != nil {
			if end <= int64(len(b)) {
				t.Fatalf("%q: net/http says %v of the body", b, err)
			}
			return
		}
		rest, _ := io.ReadAll(reader)
		if string(content) != string(b[ours.Size:end]) || string(rest) != string(b[end:]) {
			t.Fatalf("%q: net/http reads the body %q, and leaves %q", b, content, rest)
		}
	})
}

// sameFields compares the fields, all of them, in the order of those of one name.
func sameFields(t *testing.T, b []byte, ours []head.Field, theirs http.Header, but string) {
	t.Helper()
	mine := http.Header{}
	for _, f := range ours {
		name := http.CanonicalHeaderKey(string(f.Name(b)))
		if name == but {
			continue
		}
		value := string(f.Value(b))
		if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			t.Fatalf("%q: net/http's server would refuse %q: %q", b, name, value)
		}
		mine[name] = append(mine[name], value)
	}
	for name, values := range mine {
		got := theirs[name]
		if name == "Transfer-Encoding" && got == nil { // it is kept elsewhere
			continue
		}
		if name == "Cache-Control" || name == "Connection" { // net/http adds to one, and removes of the other
			continue
		}
		if !slices.Equal(got, values) {
			t.Fatalf("%q: %s is %q to net/http, %q here", b, name, got, values)
		}
	}
	for name := range theirs {
		if mine[name] == nil && name != "Cache-Control" {
			t.Fatalf("%q: net/http sees %s, too", b, name)
		}
	}
}

// FuzzResponse: what is simple is an answer to net/http too, with the same body.
func FuzzResponse(f *testing.F) {
	for _, seed := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.0 404 \r\ncontent-length:0\r\nDate: x\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n1;a\r\nx\r\n0\r\nA: b\r\n\r\nrest", "HTTP/1.1 204 No Content\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
	} {
		f.Add([]byte(seed), false)
		f.Add([]byte(seed), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, bodyless bool) {
		var ours head.Response
		if ours.Parse(b, bodyless) != head.Simple {
			return
		}
		method := http.MethodGet
		if bodyless {
			method = http.MethodHead
		}
		reader := bufio.NewReader(bytes.NewReader(b))
		theirs, err := http.ReadResponse(reader, &http.Request{Method: method})
		if err != nil {
			t.Fatalf("%q: net/http says %v", b, err)
		}
		if theirs.StatusCode != ours.Status || theirs.Close && !ours.Last {
			t.Fatalf("%q: %+v; want as %+v", b, ours, theirs)
		}
		sameFields(t, b[:ours.Size], ours.All(), theirs.Header, "")
		if (ours.Length < 0) != (len(theirs.TransferEncoding) > 0) && !bodyless {
			t.Fatalf("%q: net/http sees the coding %v", b, theirs.TransferEncoding)
		}
		content, err := io.ReadAll(theirs.Body)
		if ours.Length < 0 {
			return // FuzzChunks
		}
		end := int64(ours.Size) + ours.Length
		if err != nil {
			if end <= int64(len(b)) {
				t.Fatalf("%q: net/http says %v of the body", b, err)
			}
			return
		}
		if string(content) != string(b[ours.Size:end]) {
			t.Fatalf("%q: net/http reads the body %q", b, content)
		}
	})
}

// FuzzChunks: a body that is copied is the same body to net/http before and
// behind, however it is cut, and ends at the same place.
func FuzzChunks(f *testing.F) {
	for _, seed := range []string{"0\r\n\r\n", "3\r\nabc\r\n0\r\nA: b\r\n\r\nrest", "3;a=b\r\nabc\r\n00\r\n\r\n", "1 \r\nx\r\n0\r\nHost: a\r\n\r\n"} {
		f.Add([]byte(seed), uint8(1))
	}
	f.Fuzz(func(t *testing.T, b []byte, step uint8) {
		out, used, err := copyChunks(b, int(step)+1)
		if whole, n, werr := copyChunks(b, len(b)+1); string(whole) != string(out) || n != used || !errors.Is(err, werr) {
			t.Fatalf("%q by %d: %q, %d, %v; want %q, %d, %v", b, step, out, used, err, whole, n, werr)
		}
		if err != nil {
			return
		}
		want, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(b)))
		if err != nil {
			t.Fatalf("%q: net/http says %v", b, err)
		}
		if got, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(out))); string(got) != string(want) || err != nil {
			t.Fatalf("%q became %q, which is %q, %v", b, out, got, err)
		}
		if again, n, err := copyChunks(out, len(out)); string(again) != string(out) || n != len(out) || err != nil {
			t.Fatalf("%q became %q, which becomes %q, %d, %v", b, out, again, n, err)
		}
	})
}
