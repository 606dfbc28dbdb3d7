package route_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/corridor-enclave/corridor/host/route"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A saying is a client that says what it says, and takes any deadline.
type saying struct {
	net.Conn
	io.Reader
}

func (s saying) Read(b []byte) (int, error)      { return s.Reader.Read(b) }
func (saying) SetReadDeadline(_ time.Time) error { return nil }

// recorded keeps what a client writes, and lets it go no further.
type recorded struct {
	net.Conn
	bytes.Buffer
}

func (r *recorded) Read([]byte) (int, error)      { return 0, io.EOF }
func (r *recorded) Write(b []byte) (int, error)   { return r.Buffer.Write(b) }
func (r *recorded) SetDeadline(_ time.Time) error { return nil }
func (r *recorded) Close() error                  { return nil }

// hello is a ClientHello as Go's own client says it.
func hello(t testing.TB, name string) []byte {
	t.Helper()
	r := &recorded{}
	c := tls.Client(r, &tls.Config{ServerName: name, InsecureSkipVerify: true}) //nolint:gosec // nobody answers
	if err := c.HandshakeContext(t.Context()); err == nil {
		t.Fatal("a handshake with nobody")
	}
	return r.Bytes()
}

// inFragments spreads a handshake message over records of n bytes each.
func inFragments(record []byte, n int) []byte {
	var out []byte
	for message := record[5:]; len(message) > 0; {
		k := min(n, len(message))
		out = append(out, 22, 3, 1)
		out = binary.BigEndian.AppendUint16(out, uint16(k))
		out = append(out, message[:k]...)
		message = message[k:]
	}
	return out
}

func TestPeekRefuses(t *testing.T) {
	t.Parallel()
	whole := hello(t, "a.example")
	changed := func(at int, b byte) string {
		c := bytes.Clone(whole)
		c[at] = b
		return string(c)
	}
	tests := map[string]string{
		"nothing":                    "",
		"half a ClientHello":         string(whole[:len(whole)/2]),
		"half a request":             "GET / HTTP/1.1\r\nHost: a.example\r\n",
		"SSH":                        "SSH-2.0-OpenSSH_9\r\n",
		"lower case":                 "get / HTTP/1.1\r\n\r\n",
		"a long method":              strings.Repeat("A", 32),
		"no version":                 "GET /\r\n\r\n",
		"another version":            "GET / HTTP/2.0\r\n\r\n",
		"too many words":             "GET / x HTTP/1.1\r\n\r\n",
		"two hosts":                  "GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n",
		"a head without end":         "GET / HTTP/1.1\r\nX: " + strings.Repeat("x", route.MaxPeek),
		"another TLS version":        changed(1, 2),
		"no ClientHello":             changed(5, 2),
		"a ClientHello too large":    changed(6, 1),
		"a record too large":         changed(3, 0x41),
		"an empty record":            "\x16\x03\x01\x00\x00",
		"a session id beyond":        changed(5+4+34, 255),
		"extensions without content": string(whole[:5+4+34]),
	}
	for name, said := range tests {
		p, err := route.Peek(t.Context(), saying{Reader: strings.NewReader(said)})
		if !errors.Is(err, route.ErrNoName) {
			t.Errorf("%s: %+v, %v; want ErrNoName", name, p, err)
		}
	}
	if _, err := route.Peek(t.Context(), saying{Reader: iotest.ErrReader(os.ErrClosed)}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a client that fails: %v", err)
	}
}

func TestPeek(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, said, want string }{
		{"SNI", string(hello(t, "a.example")), "a.example"},
		{"SNI in capitals, with a final dot", string(hello(t, "A.Example.")), "a.example"},
		{"an address is no SNI", string(hello(t, "192.0.2.1")), ""},
		{"SNI in fragments", string(inFragments(hello(t, "a.example"), 7)), "a.example"},
		{"bytes behind", string(hello(t, "a.example")) + "early data", "a.example"},
		{"Host", "GET / HTTP/1.1\r\nHost: A.Example\r\n\r\n", "a.example"},
		{"Host with a port", "GET / HTTP/1.1\r\nX: y\r\nhOST: \t a.example:8080 \r\n\r\nbody", "a.example"},
		{"Host with an IPv6 address", "GET / HTTP/1.1\r\nHost: [2001:DB8::1]:80\r\n\r\n", "2001:db8::1"},
		{"an absolute target", "GET http://b.example:80/x HTTP/1.1\r\nHost: a.example\r\n\r\n", "b.example"},
		{"a URL in a path", "GET /?u=http://b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", "a.example"},
		{"no Host", "GET / HTTP/1.0\r\n\r\n", ""},
		{"HTTP/2 without TLS", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""},
	}
	for _, tt := range tests {
		for how, r := range map[string]io.Reader{
			"at once": strings.NewReader(tt.said), "byte by byte": iotest.OneByteReader(strings.NewReader(tt.said)),
		} {
			p, err := route.Peek(t.Context(), saying{Reader: r})
			if err != nil {
				t.Errorf("%s %s: %v", tt.name, how, err)
				continue
			}
			rest, _ := io.ReadAll(r)
			if p.Name != tt.want || string(p.Said)+string(rest) != tt.said {
				t.Errorf("%s %s: name %q, want %q; %d of %d bytes kept", tt.name, how, p.Name, tt.want, len(p.Said)+len(rest), len(tt.said))
			}
			p.Release()
			p.Release() // is harmless
		}
	}
}

// TestPeekGivesUp: on one who says nothing, and when it is told to.
func TestPeekGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, host := net.Pipe()
		defer client.Close()
		start := time.Now()
		if _, err := route.Peek(t.Context(), host); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != 10*time.Second {
			t.Errorf("a silent client: %v after %v", err, time.Since(start))
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		start = time.Now()
		if _, err := route.Peek(ctx, host); err == nil || time.Since(start) != time.Second {
			t.Errorf("told to stop: %v after %v", err, time.Since(start))
		}
	})
}

// nameByTLS asks crypto/tls, the obvious way.
func nameByTLS(said []byte) (name string, ok bool) {
	c := tls.Server(&twoWay{Reader: bytes.NewReader(said)}, &tls.Config{
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			name, ok = h.ServerName, true
			return nil, errors.New("enough")
		},
	})
	_ = c.Handshake()
	return name, ok
}

// twoWay reads what is given and drops what is written.
type twoWay struct {
	recorded
	io.Reader
}

func (w *twoWay) Read(b []byte) (int, error)  { return w.Reader.Read(b) }
func (w *twoWay) Write(b []byte) (int, error) { return len(b), nil }

// FuzzPeek: whatever is found was said, and what crypto/tls finds is found.
func FuzzPeek(f *testing.F) {
	f.Add(hello(f, "a.example"))
	f.Add(inFragments(hello(f, "b.example"), 100))
	f.Add([]byte("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"))
	f.Add([]byte("PRI * HTTP/2.0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, said []byte) {
		p, err := route.Peek(t.Context(), saying{Reader: bytes.NewReader(said)})
		want, ok := nameByTLS(said)
		if err != nil {
			if ok && len(said) <= route.MaxPeek && !strings.Contains(err.Error(), "not a TLS handshake") {
				t.Fatalf("crypto/tls finds %q, Peek %v", want, err)
			}
			return
		}
		defer p.Release()
		if !bytes.HasPrefix(said, p.Said) {
			t.Fatal("what was said was changed")
		}
		if !strings.Contains(strings.ToLower(string(said)), p.Name) && said[0] != 22 {
			t.Fatalf("nobody said %q", p.Name)
		}
		if ok && p.Name != strings.TrimSuffix(strings.ToLower(want), ".") {
			t.Fatalf("Peek finds %q, crypto/tls %q", p.Name, want)
		}
	})
}
