package relay_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corridor-enclave/corridor/tapstack/relay"
)

// A finished relay is what Relay returned.
type finished struct {
	relay.Result
	err error
}

// A relayer is one of the ways to relay.
type relayer func(ctx context.Context, a, b net.Conn, o relay.Options) (relay.Result, error)

// relayers runs a test by goroutines, and by an engine.
func relayers(t *testing.T, test func(t *testing.T, by relayer)) {
	t.Run("goroutines", func(t *testing.T) { t.Parallel(); test(t, relay.Relay) })
	t.Run("engine", func(t *testing.T) { t.Parallel(); test(t, new(relay.Engine).Relay) })
}

// start relays between two connections, and hands over the outcome.
func (by relayer) start(ctx context.Context, a, b net.Conn, o relay.Options) <-chan finished {
	out := make(chan finished, 1)
	go func() {
		res, err := by(ctx, a, b, o)
		out <- finished{res, err}
	}()
	return out
}

// pair returns both ends of a connection of the given network.
func pair(t testing.TB, network string) (near, far net.Conn) {
	t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial(network, l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

// ends sets up client <-> (a relay b) <-> server over the two networks.
func (by relayer) ends(t *testing.T, networkA, networkB string, ctx context.Context, o relay.Options) (client, server net.Conn, out <-chan finished) {
	t.Helper()
	client, a := pair(t, networkA)
	b, server := pair(t, networkB)
	return client, server, by.start(ctx, a, b, o)
}

func closeWrite(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
}

func readAll(t *testing.T, c net.Conn, want []byte) {
	t.Helper()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("read %d bytes, %v; want the %d bytes that were sent, and end of stream", len(got), err, len(want))
	}
}

func TestRelayCarriesBothStreamsToTheirEnd(t *testing.T) {
	t.Parallel()
	relayers(t, testRelayCarriesBothStreamsToTheirEnd)
}

func testRelayCarriesBothStreamsToTheirEnd(t *testing.T, by relayer) {
	up, down := make([]byte, 1<<20+7), make([]byte, 3<<20+1)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(up)
	_, _ = rng.Read(down)
	tests := []struct {
		name        string
		networks    [2]string
		serverFirst bool
		bufferSize  int
	}{
		{name: "client ends first", networks: [2]string{"tcp", "tcp"}},
		{name: "server ends first", networks: [2]string{"tcp", "tcp"}, serverFirst: true},
		{name: "unix, client ends first", networks: [2]string{"unix", "unix"}},
		{name: "tcp to unix, server ends first", networks: [2]string{"tcp", "unix"}, serverFirst: true},
		{name: "small buffer", networks: [2]string{"tcp", "tcp"}, bufferSize: 1000},
		{name: "large buffer", networks: [2]string{"tcp", "tcp"}, bufferSize: 200 << 10},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var aToB, bToA atomic.Int64
			client, server, out := by.ends(t, tt.networks[0], tt.networks[1], t.Context(), relay.Options{
				BufferSize: tt.bufferSize, AToB: &aToB, BToA: &bToA,
			})
			early, late, first := client, server, relay.SideA
			sendEarly, sendLate := up, down
			if tt.serverFirst {
				early, late, first = server, client, relay.SideB
				sendEarly, sendLate = down, up
			}
			go func() {
				_, _ = early.Write(sendEarly)
				_ = early.(interface{ CloseWrite() error }).CloseWrite()
			}()
			readAll(t, late, sendEarly) // returns only if the half-close arrived
			go func() {
				_, _ = late.Write(sendLate)
				_ = late.(interface{ CloseWrite() error }).CloseWrite()
			}()
			readAll(t, early, sendLate)
			got := <-out
			if got.err != nil || got.AToB != int64(len(up)) || got.BToA != int64(len(down)) || got.First != first {
				t.Fatalf("Relay = %+v; want %d and %d bytes, %s first, no error", got, len(up), len(down), first)
			}
			if aToB.Load() != got.AToB || bToA.Load() != got.BToA {
				t.Errorf("counted meanwhile: %d and %d bytes, in the end %+v", aToB.Load(), bToA.Load(), got)
			}
		})
	}
}

func TestRelayPassesAResetOn(t *testing.T) { t.Parallel(); relayers(t, testRelayPassesAResetOn) }

func testRelayPassesAResetOn(t *testing.T, by relayer) {
	for _, side := range []relay.Side{relay.SideA, relay.SideB} {
		t.Run(side.String(), func(t *testing.T) {
			t.Parallel()
			client, server, out := by.ends(t, "tcp", "tcp", t.Context(), relay.Options{})
			resetting, other := client, server
			if side == relay.SideB {
				resetting, other = server, client
			}
			if _, err := resetting.Write([]byte("half of a respo")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(other, make([]byte, 15)); err != nil {
				t.Fatal(err)
			}
			if err := resetting.(*net.TCPConn).SetLinger(0); err != nil {
				t.Fatal(err)
			}
			resetting.Close()
			if _, err := io.ReadAll(other); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the other side read to %v; want a reset, not a whole stream", err)
			}
			got := <-out
			if got.First != side || !errors.Is(got.err, syscall.ECONNRESET) {
				t.Errorf("Relay = %+v; want a reset from %s", got, side)
			}
		})
	}
}

// A response that is cut after the request has ended must not look whole.
func TestRelayResetsAfterHalfClose(t *testing.T) {
	t.Parallel()
	relayers(t, testRelayResetsAfterHalfClose)
}

func testRelayResetsAfterHalfClose(t *testing.T, by relayer) {
	client, server, out := by.ends(t, "tcp", "tcp", t.Context(), relay.Options{})
	closeWrite(t, client)
	readAll(t, server, nil)
	if err := server.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	server.Close()
	if _, err := io.ReadAll(client); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("client read to %v; want a reset", err)
	}
	if got := <-out; got.First != relay.SideA || !errors.Is(got.err, syscall.ECONNRESET) {
		t.Errorf("Relay = %+v; want side a first and a reset", got)
	}
}

func TestRelayEndsWithItsContext(t *testing.T) {
	t.Parallel()
	relayers(t, testRelayEndsWithItsContext)
}

func testRelayEndsWithItsContext(t *testing.T, by relayer) {
	cause := errors.New("the enclave went away")
	ctx, cancel := context.WithCancelCause(t.Context())
	client, server, out := by.ends(t, "tcp", "tcp", ctx, relay.Options{})
	cancel(cause)
	got := <-out
	if !errors.Is(got.err, cause) || got.First != relay.NoSide {
		t.Errorf("Relay = %+v; want its context's cause and no side", got)
	}
	for name, c := range map[string]net.Conn{"client": client, "server": server} {
		if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s read to %v; want a reset", name, err)
		}
	}
}

func TestRelayIdle(t *testing.T) { t.Parallel(); relayers(t, testRelayIdle) }

func testRelayIdle(t *testing.T, by relayer) {
	const timeout = time.Minute
	synctest.Test(t, func(t *testing.T) {
		client, a := net.Pipe()
		b, server := net.Pipe()
		out := by.start(t.Context(), a, b, relay.Options{IdleTimeout: timeout})
		begin := time.Now()
		for range 20 { // one byte now and then, in one direction only, is not idle
			time.Sleep(timeout - time.Second)
			if _, err := client.Write([]byte{1}); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(server, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		last := time.Now()
		got := <-out
		if !errors.Is(got.err, relay.ErrIdle) || got.AToB != 20 {
			t.Fatalf("Relay = %+v; want ErrIdle after 20 bytes", got)
		}
		if quiet := time.Since(last); quiet < timeout || quiet > timeout*5/4 {
			t.Errorf("ended %v after the last byte (%v in all); want %v to %v", quiet, time.Since(begin), timeout, timeout*5/4)
		}
		_, err1 := client.Read(make([]byte, 1))
		_, err2 := server.Read(make([]byte, 1))
		if err1 == nil || err2 == nil {
			t.Errorf("after the end, reads give %v and %v; want both closed", err1, err2)
		}
	})
}

func TestRelayIdleIsAlsoAWriteThatDoesNotMove(t *testing.T) {
	t.Parallel()
	relayers(t, testRelayIdleIsAlsoAWriteThatDoesNotMove)
}

func testRelayIdleIsAlsoAWriteThatDoesNotMove(t *testing.T, by relayer) {
	synctest.Test(t, func(t *testing.T) {
		client, a := net.Pipe()
		b, server := net.Pipe()
		defer server.Close() // which never reads
		defer client.Close()
		out := by.start(t.Context(), a, b, relay.Options{IdleTimeout: time.Second})
		if _, err := client.Write([]byte("stuck")); err != nil {
			t.Fatal(err)
		}
		if got := <-out; !errors.Is(got.err, relay.ErrIdle) || got.AToB != 0 {
			t.Fatalf("Relay = %+v; want ErrIdle and nothing moved", got)
		}
	})
}

// Without CloseWrite nobody can be told of a half-close: the answer still has
// to arrive, and the ends of both streams end the relay.
func TestRelayWithoutCloseWrite(t *testing.T) { t.Parallel(); relayers(t, testRelayWithoutCloseWrite) }

func testRelayWithoutCloseWrite(t *testing.T, by relayer) {
	client, a := pair(t, "tcp")
	b, server := net.Pipe()
	out := by.start(t.Context(), a, b, relay.Options{})
	closeWrite(t, client)
	if _, err := server.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	server.Close()
	readAll(t, client, []byte("answer"))
	// Nobody sees that a has ended, so b may be seen to end first.
	if got := <-out; got.err != nil || got.BToA != 6 {
		t.Fatalf("Relay = %+v; want 6 bytes", got)
	}
}

// A refusing conn takes nothing more, but what it said before can be read.
type refusing struct {
	net.Conn
	resets atomic.Int32
	closes atomic.Int32
}

func (r *refusing) Write([]byte) (int, error) { return 0, syscall.EPIPE }

func (r *refusing) Close() error {
	r.closes.Add(1)
	return r.Conn.Close()
}

func (r *refusing) Reset() error {
	r.resets.Add(1)
	return r.Conn.Close()
}

func TestRelayDeliversAnAnswerAheadOfARefusal(t *testing.T) {
	t.Parallel()
	relayers(t, testRelayDeliversAnAnswerAheadOfARefusal)
}

func testRelayDeliversAnAnswerAheadOfARefusal(t *testing.T, by relayer) {
	client, a := pair(t, "tcp")
	near, server := pair(t, "tcp")
	b := &refusing{Conn: near}
	out := by.start(t.Context(), a, b, relay.Options{})
	if _, err := client.Write([]byte("too large a body")); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Write([]byte("413")); err != nil {
		t.Fatal(err)
	}
	server.Close()
	readAll(t, client, []byte("413"))
	got := <-out
	if got.First != relay.SideB || !errors.Is(got.err, syscall.EPIPE) || got.AToB != 0 || got.BToA != 3 {
		t.Errorf("Relay = %+v; want a refusal by b and 3 bytes back", got)
	}
	if b.resets.Load() != 1 || b.closes.Load() != 0 {
		t.Errorf("b was reset %d times and closed %d times; want Reset, once", b.resets.Load(), b.closes.Load())
	}
}

// tlsLike is a connection whose Close says "whole stream", as TLS does.
type tlsLike struct {
	net.Conn
}

func (c tlsLike) NetConn() net.Conn { return c.Conn }

func (c tlsLike) Close() error {
	_, _ = c.Conn.Write([]byte("close_notify"))
	return c.Conn.Close()
}

func TestRelayResetsBelowTLS(t *testing.T) { t.Parallel(); relayers(t, testRelayResetsBelowTLS) }

func testRelayResetsBelowTLS(t *testing.T, by relayer) {
	var _ interface{ NetConn() net.Conn } = (*tls.Conn)(nil) // the shape that tlsLike has
	client, a := pair(t, "tcp")
	b, server := pair(t, "tcp")
	ctx, cancel := context.WithCancel(t.Context())
	out := by.start(ctx, tlsLike{a}, b, relay.Options{})
	cancel()
	<-out
	if got, err := io.ReadAll(client); len(got) > 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("client read %q, %v; want a reset and nothing before it", got, err)
	}
	server.Close()
}

func BenchmarkRelay(b *testing.B) {
	for _, size := range []int{64, 4 << 10, 64 << 10, 1 << 20} {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			client, a := pair(b, "tcp")
			near, server := pair(b, "tcp")
			out := relayer(new(relay.Engine).Relay).start(b.Context(), a, near, relay.Options{IdleTimeout: time.Minute})
			chunk, back := make([]byte, size), make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := client.Write(chunk); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(server, back); err != nil {
					b.Fatal(err)
				}
			}
			client.Close()
			server.Close()
			<-out
		})
	}
}

// A gaveUp is a connection whose end of stream is none.
type gaveUp struct{ *net.TCPConn }

func (gaveUp) AtEOF() error { return syscall.ECONNRESET }

// TestRelayAsksWhatTheEndMeans: where an end of stream stands for a reset, the
// other side is reset.
func TestRelayAsksWhatTheEndMeans(t *testing.T) {
	t.Parallel()
	relayers(t, testRelayAsksWhatTheEndMeans)
}

func testRelayAsksWhatTheEndMeans(t *testing.T, by relayer) {
	client, a := pair(t, "tcp")
	b, server := pair(t, "tcp")
	out := by.start(t.Context(), a, gaveUp{b.(*net.TCPConn)}, relay.Options{})
	if _, err := server.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	server.Close()
	got, err := io.ReadAll(client)
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client read %q, %v; want a reset", got, err)
	}
	if f := <-out; !errors.Is(f.err, syscall.ECONNRESET) || f.First != relay.SideB {
		t.Errorf("the relay ended with %+v", f)
	}
}
