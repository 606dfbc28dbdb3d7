package egress

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// A dialogue is what a client says, and what it was answered.
type dialogue struct {
	io.Reader
	bytes.Buffer
}

func (d *dialogue) Read(b []byte) (int, error) { return d.Reader.Read(b) }

const greeting = "\x05\x01\x00"

func TestSOCKSRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, says string
		err        error
		code       byte // 0: no answer, 0xff: to the greeting
	}{
		{"nothing", "", io.EOF, 0},
		{"half a greeting", "\x05", io.ErrUnexpectedEOF, 0},
		{"SOCKS4", "\x04\x01\x00\x50\x7f\x00\x00\x01\x00", errSOCKS, 0},
		{"HTTP", "CONNECT a:1 HTTP/1.1\r\n\r\n", errSOCKS, 0},
		{"fewer methods than said", "\x05\x03\x00", io.ErrUnexpectedEOF, 0},
		{"no methods", "\x05\x00", errSOCKS, socksNoMethod},
		{"a password only", "\x05\x01\x02", errSOCKS, socksNoMethod},
		{"nothing behind the greeting", greeting, io.ErrUnexpectedEOF, 0},
		{"another version", greeting + "\x04\x01\x00\x01\xc0\x00\x02\x01\x00\x50", errSOCKS, socksFailure},
		{"reserved", greeting + "\x05\x01\x01\x01\xc0\x00\x02\x01\x00\x50", errSOCKS, socksFailure},
		{"BIND", greeting + "\x05\x02\x00\x01\xc0\x00\x02\x01\x00\x50", errSOCKS, socksNoCommand},
		{"UDP", greeting + "\x05\x03\x00\x01\xc0\x00\x02\x01\x00\x50", errSOCKS, socksNoCommand},
		{"unknown kind", greeting + "\x05\x01\x00\x02\xc0\x00\x02\x01\x00\x50", errSOCKS, socksNoAddress},
		{"half an address", greeting + "\x05\x01\x00\x01\xc0\x00", io.ErrUnexpectedEOF, 0},
		{"half a name", greeting + "\x05\x01\x00\x03\x0bexample", io.ErrUnexpectedEOF, 0},
		{"a name of no bytes", greeting + "\x05\x01\x00\x03\x00\x00\x50", errSOCKS, socksFailure},
		{"a name with a zero", greeting + "\x05\x01\x00\x03\x03a\x00b\x00\x50", errSOCKS, socksFailure},
		{"a name that is a number", greeting + "\x05\x01\x00\x03\x05127.1\x00\x50", errSOCKS, socksFailure},
		{"a name that is half an address", greeting + "\x05\x01\x00\x03\x05::1.2\x00\x35", errSOCKS, socksFailure},
		{"port 0", greeting + "\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x00", errSOCKS, socksFailure},
	} {
		to, err := hearSOCKS(&dialogue{Reader: iotest.OneByteReader(strings.NewReader(tt.says))})
		if !errors.Is(err, tt.err) || to != (Destination{}) {
			t.Errorf("%s: %+v, %v; want %v", tt.name, to, err, tt.err)
		}
		var told *socksError
		if errors.As(err, &told) && told.reply() != tt.code {
			t.Errorf("%s: answered with %d, want %d", tt.name, told.reply(), tt.code)
		}
	}
}

func TestSOCKSHears(t *testing.T) {
	t.Parallel()
	for says, want := range map[string]string{
		"\x05\x02\x02\x00\x05\x01\x00\x03\x0bexample.com\x01\xbb":                                             "example.com:443",
		greeting + "\x05\x01\x00\x03\x0cExample.COM.\x01\xbb":                                                 "example.com:443",
		greeting + "\x05\x01\x00\x01\xc6\x29\x00\x04\x00\x35":                                                 "198.41.0.4:53",
		greeting + "\x05\x01\x00\x03\x0a198.41.0.4\x00\x35":                                                   "198.41.0.4:53",
		greeting + "\x05\x01\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc6\x29\x00\x04\x00\x35": "198.41.0.4:53",
	} {
		d := &dialogue{Reader: strings.NewReader(says + "behind")}
		to, err := hearSOCKS(d)
		rest, _ := io.ReadAll(d.Reader)
		if err != nil || to.String() != want || string(rest) != "behind" || d.String() != "\x05\x00" {
			t.Errorf("%q: %s, %v; answered %q, and %q is left", says, to, err, d.String(), rest)
		}
	}
}

func TestCONNECTRefuses(t *testing.T) {
	t.Parallel()
	long := "CONNECT example.com:443 HTTP/1.1\r\nX: " + strings.Repeat("x", maxHead) + "\r\n\r\n"
	for _, tt := range []struct {
		name, says string
		err        error
		status     int
	}{
		{"nothing", "", io.EOF, 0},
		{"half a line", "CONNECT exam", errCONNECT, 400},
		{"half a head", "CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n", io.ErrUnexpectedEOF, 0},
		{"a head without an end", long, errCONNECT, 431},
		{"a line without an end", strings.Repeat("C", maxHead+1), errCONNECT, 431},
		{"SOCKS", "\x05\x01\x00\r\n\r\n", errCONNECT, 400},
		{"GET", "GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n", errCONNECT, 405},
		{"no port", "CONNECT example.com HTTP/1.1\r\nHost: x\r\n\r\n", errCONNECT, 400},
		{"port 0", "CONNECT example.com:0 HTTP/1.1\r\nHost: x\r\n\r\n", errCONNECT, 400},
		{"port of letters", "CONNECT example.com:https HTTP/1.1\r\nHost: x\r\n\r\n", errCONNECT, 400},
		{"a large port", "CONNECT example.com:65979 HTTP/1.1\r\nHost: x\r\n\r\n", errCONNECT, 400},
		{"a path", "CONNECT /path:443 HTTP/1.1\r\nHost: x\r\n\r\n", errCONNECT, 400},
		{"a user", "CONNECT user@example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n", errCONNECT, 400},
		{"a number", "CONNECT 127.1:443 HTTP/1.1\r\nHost: x\r\n\r\n", errCONNECT, 400},
		{"content", "CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx", errCONNECT, 400},
		{"chunks", "CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", errCONNECT, 400},
		{"a malformed field", "CONNECT example.com:443 HTTP/1.1\r\nHost x\r\n\r\n", errCONNECT, 400},
	} {
		to, behind, err := hearCONNECT(strings.NewReader(tt.says))
		if !errors.Is(err, tt.err) || to != (Destination{}) || len(behind) > 0 {
			t.Errorf("%s: %+v, %q, %v; want %v", tt.name, to, behind, err, tt.err)
		}
		var told *connectError
		if errors.As(err, &told) && told.status != tt.status {
			t.Errorf("%s: answered with %d, want %d", tt.name, told.status, tt.status)
		}
	}
}

func TestCONNECTHears(t *testing.T) {
	t.Parallel()
	for says, want := range map[string]string{
		"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\nUser-Agent: x\r\n\r\nbehind": "example.com:443",
		"CONNECT EXAMPLE.com.:443 HTTP/1.0\r\n\r\nbehind":                                          "example.com:443",
		"CONNECT [2606:4700::1]:443 HTTP/1.1\r\nHost: other.example\r\n\r\nbehind":                 "[2606:4700::1]:443",
	} {
		to, behind, err := hearCONNECT(strings.NewReader(says))
		if err != nil || to.String() != want || string(behind) != "behind" {
			t.Errorf("%q: %s, %v, and %q behind it", says, to, err, behind)
		}
	}
}

// FuzzHear: neither protocol takes what a resolver, a log or the host's record
// cannot.
func FuzzHear(f *testing.F) {
	f.Add([]byte(greeting + "\x05\x01\x00\x03\x0bexample.com\x01\xbb"))
	f.Add([]byte(greeting + "\x05\x01\x00\x01\xc6\x29\x00\x04\x00\x35"))
	f.Add([]byte("CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\nbehind"))
	f.Add([]byte("CONNECT [2606:4700::1]:443 HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		for _, hear := range []func() (Destination, error){
			func() (Destination, error) { return hearSOCKS(&dialogue{Reader: bytes.NewReader(in)}) },
			func() (Destination, error) { to, _, err := hearCONNECT(bytes.NewReader(in)); return to, err },
		} {
			to, err := hear()
			if err != nil {
				continue
			}
			if _, err := to.call().Append(nil); err != nil {
				t.Fatalf("%+v: %v", to, err)
			}
			again, err := ParseDestination(to.Host(), to.Port)
			if err != nil || again != to {
				t.Fatalf("%+v is read again as %+v, %v", to, again, err)
			}
		}
	})
}
