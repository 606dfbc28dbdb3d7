package relay_test

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/corridor-enclave/corridor/tapstack/nonblock"
	"github.com/corridor-enclave/corridor/tapstack/relay"
)

// A fillable connection is filled by turns with all there is, with a part, and not. It
// takes its time, so that there is bulk.
type fillable struct {
	net.Conn
	source      syscall.RawConn
	sent        chan struct{} // closed when the source gets no more
	fills, full atomic.Int32
	failing     error
}

func newFillable(t *testing.T, c, source net.Conn) *fillable {
	t.Helper()
	raw, err := source.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	return &fillable{Conn: c, source: raw, sent: make(chan struct{})}
}

// settle waits until much waits in the source, or all that will.
func (f *fillable) settle() {
	for n := 0; n < 64<<10; runtime.Gosched() {
		select {
		case <-f.sent:
			return
		default:
		}
		if f.source.Control(func(fd uintptr) { n = nonblock.Waiting(int(fd)) }) != nil {
			return
		}
	}
}

func (f *fillable) Write(p []byte) (int, error) {
	f.settle()
	return f.Conn.Write(p)
}

func (f *fillable) Fill(n int, read func(p []byte) (int, error)) (int, error) {
	turn := f.fills.Add(1)
	if f.failing != nil {
		return 0, f.failing
	}
	if turn%3 == 0 {
		f.full.Add(1)
		return 0, nil
	}
	if turn%3 == 1 {
		n = n/2 + 1
	}
	p := make([]byte, n)
	for got := 0; got < n; {
		some, err := read(p[got:min(n, got+40_000)])
		if err != nil {
			return 0, err
		}
		got += some
	}
	return f.Write(p)
}

func (f *fillable) AwaitRoom() { f.settle() }

func (f *fillable) CloseWrite() error { return f.Conn.(*net.TCPConn).CloseWrite() }

// A Filler gets bulk by Fill, and every byte in its place.
func TestRelayFills(t *testing.T) {
	t.Parallel()
	content := make([]byte, 6<<20+3)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(content)
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			client, a := pair(t, network)
			near, server := pair(t, "tcp")
			b := newFillable(t, near, a)
			var counted atomic.Int64
			out := relayer(relay.Relay).start(t.Context(), a, b, relay.Options{AToB: &counted})
			go func() {
				_, _ = client.Write(content)
				close(b.sent)
				_ = client.(interface{ CloseWrite() error }).CloseWrite()
			}()
			readAll(t, server, content)
			closeWrite(t, server)
			readAll(t, client, nil)
			got := <-out
			if got.err != nil || got.AToB != int64(len(content)) || counted.Load() != got.AToB || got.First != relay.SideA {
				t.Errorf("Relay = %+v, counted %d; want %d bytes, and a first", got, counted.Load(), len(content))
			}
			if b.full.Load() == 0 {
				t.Errorf("of %d fills none found no room: the test shows less than it says", b.fills.Load())
			}
		})
	}
}

// A Filler that fails ends this direction, as one whose Write does.
func TestRelayFillFails(t *testing.T) {
	t.Parallel()
	client, a := pair(t, "tcp")
	near, server := pair(t, "tcp")
	b := newFillable(t, near, a)
	b.failing = syscall.EPIPE
	out := relayer(relay.Relay).start(t.Context(), a, b, relay.Options{})
	go func() {
		_, _ = client.Write(make([]byte, 8<<20))
		close(b.sent)
		_, _ = io.Copy(io.Discard, client)
	}()
	go func() { _, _ = io.Copy(io.Discard, server) }()
	closeWrite(t, server)
	got := <-out
	if !errors.Is(got.err, syscall.EPIPE) {
		t.Errorf("Relay = %+v; want a refusal by b", got)
	}
}
