package relay_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/corridor-enclave/corridor/tapstack/relay"
	"github.com/corridor-enclave/corridor/tapstack/stream"
)

// TestEngineEndsQuietRelays: sockets, on which no goroutine waits.
func TestEngineEndsQuietRelays(t *testing.T) {
	t.Parallel()
	client, a := pair(t, "tcp")
	b, server := pair(t, "unix")
	var engine relay.Engine
	result, err := engine.Relay(t.Context(), a, b, relay.Options{IdleTimeout: 10 * time.Millisecond})
	if !errors.Is(err, relay.ErrIdle) || result.First != relay.NoSide {
		t.Errorf("Relay = %+v, %v; want ErrIdle", result, err)
	}
	if _, err := io.ReadAll(client); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client read to %v; want a reset", err)
	}
	if _, err := io.ReadAll(server); err != nil {
		t.Errorf("the server read to %v; want the end", err)
	}
}

// TestEngineBeginsAfterItsContext: what is asked to stop before it begins ends too.
func TestEngineBeginsAfterItsContext(t *testing.T) {
	t.Parallel()
	client, a := pair(t, "tcp")
	b, _ := pair(t, "unix")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var engine relay.Engine
	if _, err := engine.Relay(ctx, a, b, relay.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Relay ended with %v", err)
	}
	if _, err := io.ReadAll(client); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client read to %v; want a reset", err)
	}
}

// TestEngineStopsReadingForOneThatDoesNotRead: what cannot be written is kept, up to
// a buffer, and the rest stays with its sender; other relays go on.
func TestEngineStopsReadingForOneThatDoesNotRead(t *testing.T) {
	t.Parallel()
	var engine relay.Engine
	var by relayer = engine.Relay
	const limit = 16 << 20
	client, server, out := by.ends(t, "tcp", "unix", t.Context(), relay.Options{})
	if err := client.SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	sent := make(chan int64)
	go func() {
		n, _ := io.Copy(client, io.LimitReader(endless{}, limit))
		_ = client.(*net.TCPConn).CloseWrite()
		sent <- n
	}()
	other, far, ended := by.ends(t, "tcp", "tcp", t.Context(), relay.Options{})
	for range 100 {
		if _, err := other.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(far, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case n := <-sent:
		t.Errorf("%d bytes were taken from the client, and its server read none", n)
	default:
	}
	got, err := io.Copy(io.Discard, server)
	if n := <-sent; got != limit || n != limit || err != nil {
		t.Errorf("of %d bytes %d came through, %v", n, got, err)
	}
	server.Close()
	other.Close()
	far.Close()
	if f := <-out; f.err != nil || f.AToB != limit {
		t.Errorf("Relay = %+v", f)
	}
	<-ended
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// TestEngineKnowsWhatAStreamsEndMeans: to close a stream before we ended ours is a
// reset, to end it first is none.
func TestEngineKnowsWhatAStreamsEndMeans(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		end  func(c *net.UnixConn) error
		want error
	}{
		{"gives up", (*net.UnixConn).Close, syscall.ECONNRESET},
		{"ends", (*net.UnixConn).CloseWrite, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			client, a := pair(t, "tcp")
			b, server := pair(t, "unix")
			var engine relay.Engine
			out := relayer(engine.Relay).start(t.Context(), a, stream.New(b), relay.Options{})
			if _, err := server.Write([]byte("half")); err != nil {
				t.Fatal(err)
			}
			if err := tt.end(server.(*net.UnixConn)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAll(client); !errors.Is(err, tt.want) {
				t.Errorf("the client read to %v; want %v", err, tt.want)
			}
			client.Close()
			if f := <-out; !errors.Is(f.err, tt.want) || f.First != relay.SideB {
				t.Errorf("Relay = %+v; want b first, %v", f, tt.want)
			}
		})
	}
}

// TestEngineDeliversAnAnswerAheadOfARefusal: the peer of b takes nothing more, and
// what it said before comes through.
func TestEngineDeliversAnAnswerAheadOfARefusal(t *testing.T) {
	t.Parallel()
	client, a := pair(t, "tcp")
	b, server := pair(t, "unix")
	if err := server.(*net.UnixConn).CloseRead(); err != nil {
		t.Fatal(err)
	}
	var engine relay.Engine
	out := relayer(engine.Relay).start(t.Context(), a, b, relay.Options{})
	if _, err := client.Write([]byte("too large a body")); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Write([]byte("413")); err != nil {
		t.Fatal(err)
	}
	server.Close()
	readAll(t, client, []byte("413"))
	if got := <-out; !errors.Is(got.err, syscall.EPIPE) || got.BToA != 3 {
		t.Errorf("Relay = %+v; want a refusal by b and 3 bytes back", got)
	}
}

// TestEngineStartsAndEndsItsLoops: many relays come and go at once, so that loops
// begin while they end, and descriptors are given out anew.
func TestEngineStartsAndEndsItsLoops(t *testing.T) {
	t.Parallel()
	var engine relay.Engine
	var moved atomic.Int64
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for range 50 {
				client, a := socketPair(t)
				b, server := socketPair(t)
				out := relayer(engine.Relay).start(t.Context(), a, b, relay.Options{AToB: &moved})
				_, _ = client.Write([]byte("question"))
				_ = client.(*net.UnixConn).CloseWrite()
				if got, err := io.ReadAll(server); !bytes.Equal(got, []byte("question")) || err != nil {
					t.Errorf("the server read %q, %v", got, err)
				}
				server.Close()
				if f := <-out; f.err != nil {
					t.Errorf("Relay = %+v", f)
				}
				client.Close()
			}
		})
	}
	clients.Wait()
	if moved.Load() != 8*50*8 {
		t.Errorf("%d bytes were counted", moved.Load())
	}
}

// socketPair returns two unix sockets that are connected, and have no file.
func socketPair(t *testing.T) (a, b net.Conn) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Error(err)
		return nil, nil
	}
	return fileConn(t, fds[0]), fileConn(t, fds[1])
}

func fileConn(t *testing.T, fd int) net.Conn {
	file := os.NewFile(uintptr(fd), "socket")
	defer file.Close()
	c, err := net.FileConn(file)
	if err != nil {
		t.Error(err)
	}
	return c
}
