package stream_test

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/corridor-enclave/corridor/tapstack/simvsock"
	"github.com/corridor-enclave/corridor/tapstack/stream"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// pair is both ends of a stream.
func pair(t *testing.T) (host, enclave *stream.Conn) {
	t.Helper()
	dir := t.TempDir()
	inside, err := simvsock.Dir(dir, 16)
	if err != nil {
		t.Fatal(err)
	}
	outside, err := simvsock.Dir(dir, vsockconn.CIDParent)
	if err != nil {
		t.Fatal(err)
	}
	l, err := inside.Listen(stream.Port)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialed, err := outside.Dial(context.Background(), vsockconn.Addr{CID: 16, Port: stream.Port})
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{dialed, accepted} {
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	}
	return stream.New(dialed), stream.New(accepted)
}

func TestEndsAreTold(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		end  func(host, enclave *stream.Conn) error // what the host does, mostly
		want error                                  // of the enclave's read behind the bytes
	}{
		{"given up", func(host, _ *stream.Conn) error { return host.Close() }, syscall.ECONNRESET},
		{"reset", func(host, _ *stream.Conn) error { return host.Reset() }, syscall.ECONNRESET},
		{"ended", func(host, _ *stream.Conn) error { return host.CloseWrite() }, nil},
		{"ended by both, then closed", func(host, enclave *stream.Conn) error {
			return errors.Join(host.CloseWrite(), enclave.CloseWrite(), host.Close())
		}, nil},
		{"ended, then given up", func(host, _ *stream.Conn) error {
			return errors.Join(host.CloseWrite(), host.Close())
		}, syscall.ECONNRESET},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			host, enclave := pair(t)
			if _, err := io.WriteString(host, "all of it"); err != nil {
				t.Fatal(err)
			}
			if err := tt.end(host, enclave); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(enclave)
			if string(got) != "all of it" || !errors.Is(err, tt.want) {
				t.Errorf("read %q, %v; want everything and %v", got, err, tt.want)
			}
		})
	}
}

func TestHalfOpen(t *testing.T) {
	t.Parallel()
	host, enclave := pair(t)
	if err := host.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(enclave); err != nil || len(got) > 0 {
		t.Fatalf("%q, %v", got, err)
	}
	if _, err := io.WriteString(enclave, "answer"); err != nil {
		t.Fatal(err)
	}
	if err := enclave.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(host); err != nil || string(got) != "answer" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestUnused(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		does func(enclave *stream.Conn) error
		want bool
	}{
		"nothing":   {func(*stream.Conn) error { return nil }, true},
		"half-ends": {func(c *stream.Conn) error { return c.CloseWrite() }, false},
		"closes":    {func(c *stream.Conn) error { return c.Close() }, false},
		"speaks":    {func(c *stream.Conn) error { _, err := io.WriteString(c, "x"); return err }, false},
	} {
		host, enclave := pair(t)
		if err := tt.does(enclave); err != nil {
			t.Fatal(err)
		}
		if got := host.Unused(); got != tt.want {
			t.Errorf("after the enclave %s: %t, want %t", name, got, tt.want)
		}
	}
}

// TestWithoutSocket: a connection of another kind is used as far as it goes.
func TestWithoutSocket(t *testing.T) {
	t.Parallel()
	a, b := net.Pipe()
	defer b.Close()
	c := stream.New(a)
	defer c.Close()
	if c.Unused() || c.CloseWrite() == nil || c.CloseRead() == nil {
		t.Error("a pipe claims to be a socket")
	}
	if _, err := c.SyscallConn(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("SyscallConn: %v", err)
	}
}
