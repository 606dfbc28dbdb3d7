package netstack_test

import (
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"

	"github.com/corridor-enclave/corridor/tapstack/netstack"
)

// dialed is a connection from the host to the enclave, and its other end.
func dialed(t *testing.T, w *world) (*netstack.Conn, net.Conn) {
	t.Helper()
	l, err := w.enclave.ListenTCP(443)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := w.stack.DialTCP(w.ctx, netip.AddrPort{}, inEnclave(443))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	inside, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inside.Close() })
	return conn, inside
}

func TestFillErrors(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for _, tt := range []struct {
		name string
		do   func(*netstack.Conn) error
		read func(p []byte) (int, error)
		want error
	}{
		{"what cannot be read", nil, func([]byte) (int, error) { return 0, broken }, broken},
		{"what breaks off", nil, func(p []byte) (int, error) { return 1, broken }, broken},
		{"what gives nothing", nil, func([]byte) (int, error) { return 0, nil }, io.ErrNoProgress},
		{"after Close", (*netstack.Conn).Close, func(p []byte) (int, error) { return len(p), nil }, net.ErrClosed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conn, _ := dialed(t, newWorld(t, netstack.Config{}))
			if tt.do != nil {
				if err := tt.do(conn); err != nil {
					t.Fatal(err)
				}
			}
			if n, err := conn.Fill(1000, tt.read); n != 0 || !errors.Is(err, tt.want) {
				t.Errorf("Fill = %d, %v; want %v", n, err, tt.want)
			}
			if tt.do != nil {
				conn.AwaitRoom() // returns: Fill fails
			}
		})
	}
}

// Every byte that read gave arrives, whatever the pieces, and whether or not there is
// room; and what Write sends between keeps its place.
func TestFillCarriesEveryByte(t *testing.T) {
	t.Parallel()
	const whole = 12 << 20 // several times what the connection holds
	conn, inside := dialed(t, newWorld(t, netstack.Config{}))
	pieces := rand.New(rand.NewPCG(1, 2))
	content := rand.NewChaCha8([32]byte{1})
	sum, sent, waits := sha256.New(), 0, 0
	read := func(p []byte) (int, error) {
		n := 1 + pieces.IntN(len(p))
		_, _ = content.Read(p[:n])
		_, _ = sum.Write(p[:n])
		return n, nil
	}
	arrived := make(chan [sha256.Size]byte)
	go func() {
		h := sha256.New()
		_, _ = io.Copy(h, inside)
		arrived <- [sha256.Size]byte(h.Sum(nil))
	}()
	for sent < whole {
		n, err := conn.Fill(1+pieces.IntN(300<<10), read)
		if err != nil {
			t.Fatal(err)
		}
		if sent += n; n == 0 {
			waits++
			conn.AwaitRoom()
		}
		if pieces.IntN(8) == 0 {
			between := []byte("between")
			_, _ = sum.Write(between)
			if _, err := conn.Write(between); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := <-arrived; got != [sha256.Size]byte(sum.Sum(nil)) {
		t.Errorf("other bytes arrived than were read")
	}
	if waits == 0 {
		t.Error("there was always room: the test shows less than it says")
	}
}
