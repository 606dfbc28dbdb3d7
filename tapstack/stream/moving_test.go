package stream_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/corridor-enclave/corridor/tapstack/stream"
)

// A sizes connection takes writes of a limited size only, and counts them.
type sizes struct {
	net.Conn
	got []int
	out bytes.Buffer
	err error // behind the second write
}

func (s *sizes) WriteMax() int { return 10 }

func (s *sizes) Write(b []byte) (int, error) {
	s.got = append(s.got, len(b))
	if len(s.got) > 2 && s.err != nil {
		return 1, s.err
	}
	return s.out.Write(b)
}

// A plain connection does not say how large a write may be.
type plain struct{ net.Conn }

// TestWritesKeepToTheLimit: also below a connection that was moved, which does not know
// the limit.
func TestWritesKeepToTheLimit(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		size int
		want []int
	}{{0, []int{0}}, {9, []int{9}}, {10, []int{10}}, {11, []int{10, 1}}, {30, []int{10, 10, 10}}} {
		s := &sizes{}
		c := stream.New(s)
		c.Move(plain{s})
		sent := bytes.Repeat([]byte("0123456789a"), 3)[:tt.size]
		if n, err := c.Write(sent); n != tt.size || err != nil {
			t.Errorf("%d bytes: wrote %d, %v", tt.size, n, err)
		}
		if !slices.Equal(s.got, tt.want) || !bytes.Equal(s.out.Bytes(), sent) || c.WriteMax() != 10 {
			t.Errorf("%d bytes: writes of %v, %q", tt.size, s.got, s.out.Bytes())
		}
	}
	s := &sizes{err: io.ErrClosedPipe}
	if n, err := stream.New(s).Write(make([]byte, 35)); n != 21 || !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a write that fails: %d, %v", n, err)
	}
}

// A looped connection is on an event loop, as far as a stream can tell: others than the
// loop may do nothing with it but what it has.
type looped struct {
	net.Conn // nil
	socket   net.Conn
	lost     error // why it cannot be returned
}

func (l *looped) CloseWrite() error {
	return l.socket.(interface{ CloseWrite() error }).CloseWrite()
}

func (l *looped) Close() error { return l.socket.Close() }

func (l *looped) Return() (net.Conn, error) { return l.socket, l.lost }

// TestLingersOffTheLoop: whoever closes a connection that is on a loop takes it off, and
// its peer cannot tell.
func TestLingersOffTheLoop(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		lost error
		want error // of the peer's write, when it has read the end
	}{
		{"returned", nil, nil},
		{"lost", net.ErrClosed, syscall.EPIPE},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			host, enclave := pair(t)
			var all sync.WaitGroup
			c := stream.Linger(enclave, &all)
			c.Move(&looped{socket: c.Inner(), lost: tt.lost})
			if _, err := c.SyscallConn(); !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("SyscallConn on a loop: %v", err)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(host); tt.lost == nil && (len(got) > 0 || err != nil) {
				t.Errorf("the peer read %q, %v", got, err)
			}
			if _, err := io.WriteString(host, "too late"); !errors.Is(err, tt.want) {
				t.Errorf("the peer goes on: %v, want %v", err, tt.want)
			}
			if err := host.CloseWrite(); err != nil && tt.lost == nil {
				t.Error(err)
			}
			all.Wait()
		})
	}
}

// TestMovedTooLate: a socket that is on its way to or from a loop while the connection
// is closed is closed when it comes, and its peer is told that this is no end in order.
func TestMovedTooLate(t *testing.T) {
	t.Parallel()
	host, enclave := pair(t)
	var all sync.WaitGroup
	c := stream.Linger(enclave, &all)
	socket := c.Inner()
	gone, _ := net.Pipe()
	c.Move(gone)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c.Move(socket)
	if _, err := io.ReadAll(host); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the peer reads with %v", err)
	}
	all.Wait()
}
