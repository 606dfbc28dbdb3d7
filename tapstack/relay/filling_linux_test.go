package relay_test

import (
	"bytes"
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

// settle lets the client go on until much waits in the source, or all that will, or
// no more comes: a socket that holds some tells its writer late that it has room.
func (f *fillable) settle() {
	for n, still := 0, 0; n < 64<<10 && still < 10_000; runtime.Gosched() {
		select {
		case <-f.sent:
			return
		default:
		}
		before := n
		if f.source.Control(func(fd uintptr) { n = nonblock.Waiting(int(fd)) }) != nil {
			return
		}
		if still++; n != before {
			still = 0
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

// A drainable connection has content, which it gives in pieces of any size.
type drainable struct {
	net.Conn
	left   []byte
	sizes  *rand.Rand
	drains int
	failed error // at the end, instead of io.EOF
}

func (d *drainable) Read(p []byte) (int, error) {
	n := copy(p, d.left)
	d.left = d.left[n:]
	return n, d.end(n)
}

func (d *drainable) Drain(to io.Writer) (n int, err error) {
	if d.drains++; d.drains%7 == 0 {
		return 0, nil // nothing has come
	}
	for len(d.left) > 0 {
		piece := min(len(d.left), 1+d.sizes.IntN(64<<10))
		some, err := to.Write(d.left[:piece])
		d.left = d.left[some:]
		if n += some; err != nil {
			return n, nil
		}
	}
	return n, d.end(n)
}

func (d *drainable) end(n int) error {
	switch {
	case n > 0:
		return nil
	case d.failed != nil:
		return d.failed
	}
	return io.EOF
}

// A Drainer's bulk comes by Drain, and every byte of it once, however slow the socket.
func TestRelayDrains(t *testing.T) {
	t.Parallel()
	content := make([]byte, 12<<20+3)
	_, _ = rand.NewChaCha8([32]byte{4}).Read(content)
	for _, failed := range []error{nil, syscall.ECONNABORTED} {
		near, server := pair(t, "tcp")
		closeWrite(t, server)
		client, b := pair(t, "tcp")
		if err := b.(*net.TCPConn).SetWriteBuffer(128 << 10); err != nil { // less than comes at a time
			t.Fatal(err)
		}
		closeWrite(t, client)
		a := &drainable{Conn: near, left: content, sizes: rand.New(rand.NewPCG(1, 2)), failed: failed}
		var counted atomic.Int64
		out := relayer(relay.Relay).start(t.Context(), a, b, relay.Options{AToB: &counted})
		got, err := io.ReadAll(client)
		result := <-out
		if failed == nil && (err != nil || !bytes.Equal(got, content) || result.err != nil) {
			t.Errorf("%d bytes came, %v; Relay = %+v; want the %d that were sent", len(got), err, result, len(content))
		}
		if failed != nil && !errors.Is(result.err, failed) {
			t.Errorf("Relay = %+v; want %v", result, failed)
		}
		if result.AToB != int64(len(content)) || counted.Load() != result.AToB || a.drains == 0 {
			t.Errorf("%d bytes and %d counted in %d drains, want %d", result.AToB, counted.Load(), a.drains, len(content))
		}
	}
}

// A socket that takes no more ends the direction, as a Write to it does.
func TestRelayDrainFails(t *testing.T) {
	t.Parallel()
	near, server := pair(t, "tcp")
	client, b := pair(t, "tcp")
	if err := client.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	client.Close()
	closeWrite(t, server)
	a := &drainable{Conn: near, left: make([]byte, 64<<20), sizes: rand.New(rand.NewPCG(1, 2))}
	got := <-relayer(relay.Relay).start(t.Context(), a, b, relay.Options{})
	if !errors.Is(got.err, syscall.ECONNRESET) && !errors.Is(got.err, syscall.EPIPE) {
		t.Errorf("Relay = %+v; want a reset by b", got)
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
