package stream_test

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/corridor-enclave/corridor/tapstack/stream"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

func callVector(t testing.TB, name string) []byte {
	t.Helper()
	return tapstacktest.Vector(t, "../testdata/"+name+".hex")
}

func TestReadCallRefuses(t *testing.T) {
	t.Parallel()
	name, v4 := callVector(t, "call-name"), callVector(t, "call-ipv4")
	for _, tt := range []struct {
		name string
		in   []byte
		err  error
	}{
		{"nothing", nil, io.EOF},
		{"half a head", name[:10], io.ErrUnexpectedEOF},
		{"no address", name[:11], io.ErrUnexpectedEOF},
		{"half a name", name[:15], io.ErrUnexpectedEOF},
		{"a request", []byte("GET / HTTP/1.1\r\n\r\n"), stream.ErrCall},
		{"the other road's header", tapstacktest.Vector(t, "../testdata/stream-tcp4.hex"), stream.ErrCall},
		{"another version", callVector(t, "call-version2"), stream.ErrCall},
		{"unknown kind", changed(name, 5, 2), stream.ErrCall},
		{"IPv4 of another size", changed(v4, 10, 5), stream.ErrCall},
		{"IPv6 of another size", changed(callVector(t, "call-ipv6"), 10, 4), stream.ErrCall},
		{"no name", changed(name, 10, 0), stream.ErrCall},
		{"port 0", callVector(t, "call-port0"), stream.ErrCall},
		{"a label of no bytes", callVector(t, "call-no-name"), stream.ErrCall},
		{"a dot first", changed(name, 11, '.'), stream.ErrCall},
		{"a dot last", changed(name, len(name)-1, '.'), stream.ErrCall},
		{"a line in a name", changed(name, 13, '\n'), stream.ErrCall},
		{"a zero in a name", changed(name, 13, 0), stream.ErrCall},
		{"no ASCII", changed(name, 13, 0xe9), stream.ErrCall},
	} {
		if got, err := stream.ReadCall(bytes.NewReader(tt.in)); !errors.Is(err, tt.err) || got != (stream.Call{}) {
			t.Errorf("%s: %+v, %v; want %v", tt.name, got, err, tt.err)
		}
	}
}

func TestAppendCallRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []stream.Call{
		{Port: 443},
		{Name: "example.com"},
		{Name: "exam ple.com", Port: 1},
		{Name: "example.com.", Port: 1},
		{Name: strings.Repeat("a", 64) + ".com", Port: 1},
		{Name: strings.Repeat("a.", 127), Port: 1},
		{Addr: netip.MustParseAddr("fe80::1%eth0"), Port: 1},
	} {
		if b, err := c.Append([]byte("before")); !errors.Is(err, stream.ErrCall) || string(b) != "before" {
			t.Errorf("%+v became % x, %v", c, b, err)
		}
	}
}

func TestCallVectors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		vector string
		want   stream.Call
		text   string
	}{
		{"call-name", stream.Call{Name: "example.com", Port: 443, Patience: 10 * time.Second}, "example.com:443"},
		{"call-ipv4", stream.Call{Addr: netip.MustParseAddr("192.0.2.1"), Port: 5432}, "192.0.2.1:5432"},
		{"call-ipv6", stream.Call{Addr: netip.MustParseAddr("2001:db8::1"), Port: 443, Patience: stream.MaxPatience}, "[2001:db8::1]:443"},
	} {
		record := callVector(t, tt.vector)
		behind := bytes.NewReader(append(bytes.Clone(record), "behind"...))
		got, err := stream.ReadCall(iotest.OneByteReader(behind))
		if err != nil || got != tt.want || got.String() != tt.text || behind.Len() != len("behind") {
			t.Errorf("%s: %+v, %v, and %d bytes behind it", tt.vector, got, err, behind.Len())
		}
		if out, err := tt.want.Append(nil); err != nil || !bytes.Equal(out, record) {
			t.Errorf("%s: Append writes % x, %v", tt.vector, out, err)
		}
	}
}

func TestCallPatienceIsKeptWithinItsField(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ say, want time.Duration }{
		{-time.Second, 0}, {0, 0}, {time.Nanosecond, time.Millisecond}, {time.Hour, stream.MaxPatience},
	} {
		record, err := stream.Call{Name: "a", Port: 1, Patience: tt.say}.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := stream.ReadCall(bytes.NewReader(record)); err != nil || got.Patience != tt.want {
			t.Errorf("%v became %v, %v", tt.say, got.Patience, err)
		}
	}
}

func TestReadReply(t *testing.T) {
	t.Parallel()
	connected, denied := callVector(t, "reply-connected"), callVector(t, "reply-denied")
	for _, tt := range []struct {
		name string
		in   []byte
		want stream.Reply
		err  error
	}{
		{"nothing", nil, stream.Reply{}, io.EOF},
		{"half a head", connected[:2], stream.Reply{}, io.ErrUnexpectedEOF},
		{"half a text", connected[:5], stream.Reply{}, io.ErrUnexpectedEOF},
		{"no text", connected[:3], stream.Reply{}, io.ErrUnexpectedEOF},
		{"another version", changed(connected, 0, 2), stream.Reply{}, stream.ErrReply},
		{"HTTP", []byte("HTTP/1.1 400 Bad Request\r\n"), stream.Reply{}, stream.ErrReply},
		{"connected", connected, stream.Reply{Status: stream.Connected, Reason: "192.0.2.1:443"}, nil},
		{"denied, with a byte that does not print", denied, stream.Reply{Status: stream.Denied, Reason: "loopback is the host's own?"}, nil},
	} {
		if got, err := stream.ReadReply(bytes.NewReader(tt.in)); !errors.Is(err, tt.err) || got != tt.want {
			t.Errorf("%s: %+v, %v; want %+v, %v", tt.name, got, err, tt.want, tt.err)
		}
	}
	if out := (stream.Reply{Reason: "192.0.2.1:443"}).Append(nil); !bytes.Equal(out, connected) {
		t.Errorf("Append writes % x", out)
	}
	long, err := stream.ReadReply(bytes.NewReader(stream.Reply{Reason: strings.Repeat("x", 300)}.Append(nil)))
	if err != nil || len(long.Reason) != stream.MaxReason {
		t.Errorf("a long reason: %d bytes, %v", len(long.Reason), err)
	}
}

func TestStatusNamesItself(t *testing.T) {
	t.Parallel()
	for s, want := range map[stream.Status]string{stream.Connected: "connected", stream.Failed: "failed", 200: "status 200"} {
		if s.String() != want {
			t.Errorf("%d is %q", byte(s), s)
		}
	}
}

// FuzzReadCall: whatever is accepted is written and read again as the same, and
// is fit for a log.
func FuzzReadCall(f *testing.F) {
	for _, name := range []string{"name", "ipv4", "ipv6", "version2", "port0", "no-name"} {
		f.Add(callVector(f, "call-"+name))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		c, err := stream.ReadCall(bytes.NewReader(in))
		if err != nil {
			return
		}
		if strings.ContainsFunc(c.String(), func(r rune) bool { return r <= ' ' || r > '~' }) {
			t.Fatalf("%q", c.String())
		}
		record, err := c.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := stream.ReadCall(bytes.NewReader(record)); err != nil || again != c {
			t.Fatalf("%+v became %+v, %v", c, again, err)
		}
	})
}

// FuzzReadReply: the same.
func FuzzReadReply(f *testing.F) {
	f.Add(callVector(f, "reply-connected"))
	f.Add(callVector(f, "reply-denied"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := stream.ReadReply(bytes.NewReader(in))
		if err != nil {
			return
		}
		if again, err := stream.ReadReply(bytes.NewReader(r.Append(nil))); err != nil || again != r {
			t.Fatalf("%+v became %+v, %v", r, again, err)
		}
		if strings.ContainsFunc(r.Reason, func(c rune) bool { return c < ' ' || c > '~' }) {
			t.Fatalf("%q", r.Reason)
		}
	})
}
