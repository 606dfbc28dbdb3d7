package stream_test

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"

	"github.com/corridor-enclave/corridor/tapstack/stream"
)

// TestLingering: Close is an end to the peer, and Reset is none.
func TestLingering(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		end  func(*stream.Lingering) error
		want error
	}{
		{"Close", (*stream.Lingering).Close, nil},
		{"Reset", (*stream.Lingering).Reset, syscall.ECONNRESET},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			host, enclave := pair(t)
			var all sync.WaitGroup
			c := stream.Linger(enclave, &all)
			if raw, err := c.SyscallConn(); err != nil || raw == nil {
				t.Errorf("the socket is hidden: %v", err)
			}
			if c.RemoteAddr() != enclave.RemoteAddr() || c.LocalAddr() != enclave.LocalAddr() {
				t.Error("other addresses")
			}
			if _, err := c.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if err := tt.end(c); err != nil {
				t.Fatal(err)
			}
			if err := c.Close(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("a second Close: %v", err)
			}
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("a Read behind it: %v", err)
			}
			if got, err := io.ReadAll(host); string(got) != "x" || !errors.Is(err, tt.want) {
				t.Errorf("the peer read %q, %v; want %v", got, err, tt.want)
			}
			host.Close()
			all.Wait()
		})
	}
}
