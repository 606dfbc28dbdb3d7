package streams

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/corridor-enclave/corridor/tapstack/simvsock"
	"github.com/corridor-enclave/corridor/tapstack/stream"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what must happen; nothing waits for it to pass.
const patience = 20 * time.Second

// at is where the enclave of a test takes streams.
func at() vsockconn.Addr { return vsockconn.Addr{CID: 16, Port: stream.Port} }

func hello() stream.Opening {
	return stream.Opening{
		Client: netip.MustParseAddrPort("203.0.113.7:50000"), Local: netip.MustParseAddrPort("192.0.2.1:443"), Service: ":443", ID: "1-1",
	}
}

// A stand is a Dialer and the enclave that it reaches.
type stand struct {
	*Dialer
	inside   vsockconn.Transport
	accepted chan *stream.Conn
}

// newStand runs a Dialer.
func newStand(t *testing.T, keep int) *stand {
	t.Helper()
	dir := t.TempDir()
	outside, err := simvsock.Dir(dir, vsockconn.CIDParent)
	if err != nil {
		t.Fatal(err)
	}
	s := &stand{accepted: make(chan *stream.Conn, 64)}
	if s.inside, err = simvsock.Dir(dir, 16); err != nil {
		t.Fatal(err)
	}
	s.Dialer = New(Config{Transport: outside, Ready: keep, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Run(ctx); err != nil {
			t.Errorf("Run = %v", err)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return s
}

// listen starts the enclave.
func (s *stand) listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := s.inside.Listen(stream.Port)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.accepted <- stream.New(c)
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l
}

// next is the next stream that the enclave accepted.
func (s *stand) next(t *testing.T) *stream.Conn {
	t.Helper()
	select {
	case c := <-s.accepted:
		t.Cleanup(func() { c.Close() })
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		return c
	case <-time.After(patience):
		t.Fatal("no stream came")
		return nil
	}
}

func (s *stand) dial(t *testing.T) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := s.Dial(ctx, at(), hello())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// untilReady waits until so many streams are kept ready.
func (s *stand) untilReady(t *testing.T, n int) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		s.mu.Lock()
		got := 0
		if p := s.pools[at()]; p != nil {
			got = len(p.ready)
		}
		s.mu.Unlock()
		if got == n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d streams are ready, want %d", got, n)
		}
		runtime.Gosched()
	}
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	s := newStand(t, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if c, err := s.Dial(ctx, at(), hello()); !errors.Is(err, ErrUnreachable) || !errors.Is(err, syscall.ENOENT) {
		t.Errorf("Dial = %v, %v; want ErrUnreachable with the reason", c, err)
	}
	if c := s.Counts(); c.Failed == 0 || c.Connected != 0 {
		t.Errorf("counts %+v; want failures alone", c)
	}
}

// TestWaits: an enclave that comes while a client waits is found.
func TestWaits(t *testing.T) {
	t.Parallel()
	s := newStand(t, 0)
	dialed := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	go func() {
		c, err := s.Dial(ctx, at(), hello())
		if err == nil {
			err = c.Close()
		}
		dialed <- err
	}()
	s.listen(t)
	if err := <-dialed; err != nil {
		t.Error(err)
	}
}

func TestOpens(t *testing.T) {
	t.Parallel()
	s := newStand(t, 0)
	s.listen(t)
	if _, err := io.WriteString(s.dial(t), "the client's"); err != nil {
		t.Fatal(err)
	}
	inside := s.next(t)
	if o, err := stream.ReadOpening(inside); err != nil || o != hello() {
		t.Errorf("the stream opens with %+v, %v", o, err)
	}
	got := make([]byte, len("the client's"))
	if _, err := io.ReadFull(inside, got); err != nil || string(got) != "the client's" {
		t.Errorf("then comes %q, %v", got, err)
	}
	s.untilReady(t, 0)
}

// TestReadyStreamIsTaken: the second client's stream is one that was there, and
// another takes its place.
func TestReadyStreamIsTaken(t *testing.T) {
	t.Parallel()
	s := newStand(t, 2)
	s.listen(t)
	s.dial(t)
	if o, err := stream.ReadOpening(s.next(t)); err != nil || o != hello() {
		t.Fatalf("%+v, %v", o, err)
	}
	s.untilReady(t, 2)
	kept := s.next(t)
	s.dial(t)
	if o, err := stream.ReadOpening(kept); err != nil || o != hello() {
		t.Errorf("the stream that was ready opens with %+v, %v", o, err)
	}
	s.untilReady(t, 2)
	if c := s.Counts(); c.Taken != 1 || c.Connected != 4 || c.Failed != 0 || c.Died != 0 || c.Ready[at()] != 2 || len(c.Endpoints()) != 1 {
		t.Errorf("counts %+v; want one taken of four", c)
	}
}

// TestDeadStreamsAreNotTaken: an enclave that restarts takes the streams along
// that were kept ready for it.
func TestDeadStreamsAreNotTaken(t *testing.T) {
	t.Parallel()
	s := newStand(t, 3)
	s.listen(t)
	s.dial(t)
	s.next(t)
	s.untilReady(t, 3)
	for range 3 {
		s.next(t).Close()
	}
	s.dial(t)
	if o, err := stream.ReadOpening(s.next(t)); err != nil || o != hello() {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestOldStreamsAreClosed(t *testing.T) {
	t.Parallel()
	s := newStand(t, 1)
	s.listen(t)
	s.dial(t)
	s.next(t)
	s.untilReady(t, 1)
	s.sweep(time.Now())
	s.untilReady(t, 1)
	s.sweep(time.Now().Add(maxAge))
	s.untilReady(t, 0)
	if o, err := stream.ReadOpening(s.next(t)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the old stream: %+v, %v; want that it is given up", o, err)
	}
}

// TestDialAfterRun: what drains may still connect, but nothing is kept.
func TestDialAfterRun(t *testing.T) {
	t.Parallel()
	s := newStand(t, 4)
	s.listen(t)
	s.close()
	s.dial(t)
	if o, err := stream.ReadOpening(s.next(t)); err != nil || o != hello() {
		t.Errorf("%+v, %v", o, err)
	}
	s.untilReady(t, 0)
}

// TestSilentEnclave: one that grants no room for the header costs its client the
// time that it may wait, and no more.
func TestSilentEnclave(t *testing.T) {
	t.Parallel()
	ours, theirs := net.Pipe()
	defer theirs.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	conn := stream.New(ours)
	defer conn.Close()
	var timeout net.Error
	if err := open(ctx, conn, hello().Append(nil)); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("open = %v, want a timeout", err)
	}
}
