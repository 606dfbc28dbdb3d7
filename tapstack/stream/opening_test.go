package stream_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/pires/go-proxyproto"

	"github.com/corridor-enclave/corridor/tapstack/stream"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

func opening(client, local, id, service string) stream.Opening {
	return stream.Opening{Client: netip.MustParseAddrPort(client), Local: netip.MustParseAddrPort(local), ID: id, Service: service}
}

func TestReadOpeningRefuses(t *testing.T) {
	t.Parallel()
	whole := tapstacktest.Vector(t, "../testdata/stream-tcp4.hex")
	for _, tt := range []struct {
		name string
		in   []byte
		err  error
		says string
	}{
		{name: "nothing", err: io.EOF},
		{name: "half a signature", in: whole[:6], err: io.ErrUnexpectedEOF},
		{name: "no length", in: whole[:15], err: io.ErrUnexpectedEOF},
		{name: "no addresses", in: whole[:16], err: io.ErrUnexpectedEOF},
		{name: "cut in a TLV", in: whole[:len(whole)-1], err: io.ErrUnexpectedEOF},
		{name: "a request", in: []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), err: stream.ErrOpening, says: "signature"},
		{name: "a short request", in: []byte("GET /\r\n"), err: stream.ErrOpening, says: "signature"},
		{name: "version 1", in: tapstacktest.Vector(t, "../testdata/stream-version1.hex"), err: stream.ErrOpening, says: "signature"},
		{name: "version 3", in: changed(whole, 12, 0x31), err: stream.ErrOpening, says: "0x31"},
		{name: "unknown command", in: changed(whole, 12, 0x22), err: stream.ErrOpening, says: "0x22"},
		{name: "datagrams", in: changed(whole, 13, 0x12), err: stream.ErrOpening, says: "0x12"},
		{name: "unknown family", in: changed(whole, 13, 0x41), err: stream.ErrOpening, says: "0x41"},
		{name: "longer than is taken", in: tapstacktest.Vector(t, "../testdata/stream-oversized.hex"), err: stream.ErrOpening, says: "1025 bytes"},
		{name: "short addresses", in: tapstacktest.Vector(t, "../testdata/stream-short.hex"), err: stream.ErrOpening, says: "11 bytes"},
		{name: "TLV beyond the header", in: tapstacktest.Vector(t, "../testdata/stream-overrun.hex"), err: stream.ErrOpening, says: "TLV"},
		{name: "half a TLV", in: changed(append(bytes.Clone(whole[:28]), 5, 0), 15, 14), err: stream.ErrOpening, says: "TLV"},
		{name: "wrong checksum", in: tapstacktest.Vector(t, "../testdata/stream-checksum-wrong.hex"), err: stream.ErrOpening, says: "checksum"},
		{name: "checksum of two bytes", in: changed(append(bytes.Clone(whole[:28]), 3, 0, 2, 0, 0), 15, 17), err: stream.ErrOpening, says: "checksum of 2"},
		{name: "long ID", in: withText(whole, 5, stream.MaxID+1), err: stream.ErrOpening, says: "129 bytes"},
		{name: "long service", in: withText(whole, 0xe0, stream.MaxService+1), err: stream.ErrOpening, says: "256 bytes"},
	} {
		got, err := stream.ReadOpening(bytes.NewReader(tt.in))
		if !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.says) || got != (stream.Opening{}) {
			t.Errorf("%s: %+v, %v; want %v with %q", tt.name, got, err, tt.err, tt.says)
		}
	}
}

// changed is header with one byte replaced.
func changed(header []byte, at int, b byte) []byte {
	c := bytes.Clone(header)
	c[at] = b
	return c
}

// withText is the addresses of header with one TLV of n bytes.
func withText(header []byte, kind byte, n int) []byte {
	c := append(bytes.Clone(header[:28]), kind, byte(n>>8), byte(n))
	c = append(c, make([]byte, n)...)
	c[14], c[15] = byte((len(c)-16)>>8), byte(len(c)-16)
	return c
}

func TestOpeningVectors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		vector string
		want   stream.Opening
		ours   bool // what Append writes
	}{
		{"stream-tcp4.hex", opening("203.0.113.7:50000", "192.0.2.1:443", "0123456789abcdef-1a", ":443"), true},
		{"stream-tcp6.hex", opening("[2001:db8::7]:50000", "[2001:db8::1]:443", "", ""), true},
		{"stream-checksum.hex", opening("203.0.113.7:50000", "192.0.2.1:443", "", ""), false},
		{"stream-local.hex", stream.Opening{}, false},
	} {
		header := tapstacktest.Vector(t, "../testdata/"+tt.vector)
		behind := bytes.NewReader(append(bytes.Clone(header), "behind"...))
		got, err := stream.ReadOpening(iotest.OneByteReader(behind))
		if err != nil || got != tt.want {
			t.Errorf("%s: %+v, %v; want %+v", tt.vector, got, err, tt.want)
		}
		if behind.Len() != len("behind") {
			t.Errorf("%s: %d bytes are left of those behind the header", tt.vector, behind.Len())
		}
		if tt.ours && !bytes.Equal(tt.want.Append(nil), header) {
			t.Errorf("%s: Append writes % x", tt.vector, tt.want.Append(nil))
		}
	}
}

// TestOtherImplementation has a widely used one read what we write, and the other
// way round.
func TestOtherImplementation(t *testing.T) {
	t.Parallel()
	for _, o := range []stream.Opening{
		opening("203.0.113.7:50000", "192.0.2.1:443", "id", ":443"),
		opening("[2001:db8::7]:1", "[2001:db8::1]:65535", strings.Repeat("i", stream.MaxID), strings.Repeat("s", stream.MaxService)),
		opening("203.0.113.7:50000", "[2001:db8::1]:443", "", ""),
	} {
		theirs, err := proxyproto.Read(bufio.NewReader(bytes.NewReader(o.Append(nil))))
		if err != nil {
			t.Fatalf("%+v: %v", o, err)
		}
		if got := theirs.SourceAddr.(*net.TCPAddr).AddrPort(); got.Addr().Unmap() != o.Client.Addr() || got.Port() != o.Client.Port() {
			t.Errorf("they read client %v of %+v", got, o)
		}
		written, err := theirs.Format()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := stream.ReadOpening(bytes.NewReader(written)); err != nil || got != o {
			t.Errorf("we read %+v, %v; want %+v", got, err, o)
		}
	}
}

func TestAppendKeepsItsLimits(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 70000)
	o := opening("[2001:db8::7]:1", "[2001:db8::1]:2", long, long)
	got, err := stream.ReadOpening(bytes.NewReader(o.Append([]byte("before"))[len("before"):]))
	if err != nil || len(got.ID) != stream.MaxID || len(got.Service) != stream.MaxService {
		t.Errorf("%d and %d bytes of text, %v", len(got.ID), len(got.Service), err)
	}
}

func TestAppendAllocatesNothing(t *testing.T) {
	o := opening("[2001:db8::7]:1", "192.0.2.1:2", "id", "service")
	buf := make([]byte, 0, stream.MaxOpening)
	if n := testing.AllocsPerRun(100, func() { buf = o.Append(buf[:0]) }); n != 0 {
		t.Errorf("Append allocates %v times", n)
	}
}

// FuzzReadOpening: whatever is accepted is written and read again as the same.
func FuzzReadOpening(f *testing.F) {
	for _, name := range []string{"tcp4", "tcp6", "local", "checksum", "checksum-wrong", "version1", "oversized", "short", "overrun"} {
		f.Add(tapstacktest.Vector(f, "../testdata/stream-"+name+".hex"))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(bytes.Clone(in))
		o, err := stream.ReadOpening(r)
		if err != nil {
			return
		}
		if read := len(in) - r.Len(); read > stream.MaxOpening {
			t.Fatalf("%d bytes were read", read)
		}
		again, err := stream.ReadOpening(bytes.NewReader(o.Append(nil)))
		if err != nil || again != o {
			t.Fatalf("%+v became %+v, %v", o, again, err)
		}
	})
}
