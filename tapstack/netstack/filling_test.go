package netstack_test

import (
	"bytes"
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

// A part takes what a connection keeps, some bytes of each piece, and refuses now and then.
type part struct {
	got   []byte
	turns int
}

var errFull = errors.New("full")

func (p *part) Write(b []byte) (int, error) {
	if p.turns++; p.turns%5 == 0 {
		return 0, errFull
	}
	n := len(b)
	var err error
	if p.turns%3 == 0 {
		n, err = n/2, errFull
	}
	p.got = append(p.got, b[:n]...)
	return n, err
}

// Every byte comes once, whatever is taken of the pieces; then the end does.
func TestDrainCarriesEveryByte(t *testing.T) {
	t.Parallel()
	conn, inside := dialed(t, newWorld(t, netstack.Config{}))
	if n, err := conn.Drain(&part{}); n != 0 || err != nil {
		t.Errorf("Drain of nothing = %d, %v", n, err)
	}
	content := make([]byte, 8<<20)
	_, _ = rand.NewChaCha8([32]byte{3}).Read(content)
	go func() {
		_, _ = inside.Write(content)
		_ = inside.(interface{ CloseWrite() error }).CloseWrite()
	}()
	var p part
	first := make([]byte, 1)
	for {
		// Read waits, and Drain goes on behind it.
		n, err := conn.Read(first)
		if p.got = append(p.got, first[:n]...); err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		before := len(p.got)
		if n, err := conn.Drain(&p); n != len(p.got)-before || err != nil && err != io.EOF {
			t.Fatalf("Drain = %d, %v; it wrote %d", n, err, len(p.got)-before)
		}
	}
	if !bytes.Equal(p.got, content) {
		t.Errorf("%d other bytes came than the %d that were sent", len(p.got), len(content))
	}
	if n, err := conn.Drain(&p); n != 0 || err != io.EOF {
		t.Errorf("Drain of the end = %d, %v; want io.EOF", n, err)
	}
}
