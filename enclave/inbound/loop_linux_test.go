package inbound

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"

	"github.com/corridor-enclave/corridor/revproxy"
	"github.com/corridor-enclave/corridor/revproxy/eventloop"
	"github.com/corridor-enclave/corridor/tapstack/stream"
)

// onLoop moves a client's connection to an event loop, runs f there as a task, and tells
// what it returned.
func onLoop(t *testing.T, conn net.Conn, f func(*eventloop.Conn) error) <-chan error {
	t.Helper()
	e := &eventloop.Engine{}
	if _, err := e.Open(1); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	got := make(chan error, 1)
	e.Go(func(task *eventloop.Task) {
		m := conn.(revproxy.Moving)
		socket, err := task.Take(m.Inner())
		if err == nil {
			m.Move(socket)
			err = f(socket)
		}
		got <- err
	})
	return got
}

// TestOnALoop: what the peer does has the same meaning on an event loop, and so has what
// is done to the connection from elsewhere, which ends a wait there.
func TestOnALoop(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		does func(host *stream.Conn, inside *stream.Lingering) error
		read error // of the task's read behind the first byte
		end  error // of the host's behind all that the task has sent
	}{
		{"host gives up", func(host *stream.Conn, _ *stream.Lingering) error { return host.Close() }, syscall.ECONNRESET, net.ErrClosed},
		{"host ends", func(host *stream.Conn, _ *stream.Lingering) error { return host.CloseWrite() }, io.EOF, nil},
		{"closed", func(_ *stream.Conn, inside *stream.Lingering) error { return inside.Close() }, net.ErrClosed, nil},
		{"reset", func(_ *stream.Conn, inside *stream.Lingering) error { return inside.Reset() }, net.ErrClosed, syscall.ECONNRESET},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newStand(t)
			l := s.listen(t)
			host := s.open(t, "203.0.113.7:1")
			if _, err := io.WriteString(host, "x"); err != nil {
				t.Fatal(err)
			}
			inside := accept(t, l).(*stream.Lingering)
			begun := make(chan struct{})
			read := onLoop(t, inside, func(*eventloop.Conn) error {
				defer inside.Close()
				if got := inside.RemoteAddr().String(); got != "203.0.113.7:1" {
					t.Errorf("on the loop the client is %s", got)
				}
				b := make([]byte, 2)
				if n, err := inside.Read(b); n != 1 || err != nil {
					t.Errorf("%d bytes, %v", n, err)
				}
				if _, err := io.WriteString(inside, "answer"); err != nil {
					t.Error(err)
				}
				close(begun)
				_, err := inside.Read(b)
				return err
			})
			<-begun
			if err := tt.does(host, inside); err != nil {
				t.Fatal(err)
			}
			if err := <-read; !errors.Is(err, tt.read) {
				t.Errorf("the task reads with %v, want %v", err, tt.read)
			}
			if got, err := io.ReadAll(host); !errors.Is(err, tt.end) || tt.end == nil && string(got) != "answer" {
				t.Errorf("the host got %q, %v; want %v", got, err, tt.end)
			}
			_ = host.Close()
			l.Wait()
			if n := l.Counts().Open; n != 0 {
				t.Errorf("%d connections are open", n)
			}
		})
	}
}

// TestOffTheLoop: a connection that has left a loop is what it was before.
func TestOffTheLoop(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	l := s.listen(t)
	host := s.open(t, "203.0.113.7:1")
	if _, err := io.WriteString(host, "xy"); err != nil {
		t.Fatal(err)
	}
	inside := accept(t, l).(*stream.Lingering)
	left := onLoop(t, inside, func(socket *eventloop.Conn) error {
		if _, err := inside.Read(make([]byte, 1)); err != nil {
			return err
		}
		back, err := socket.Return()
		if err == nil {
			inside.Move(back)
		}
		return err
	})
	if err := <-left; err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2)
	if n, err := inside.Read(b); string(b[:n]) != "y" || err != nil {
		t.Errorf("then comes %q, %v", b[:n], err)
	}
	if got := inside.RemoteAddr().String(); got != "203.0.113.7:1" {
		t.Errorf("the client is %s", got)
	}
	if raw, err := inside.SyscallConn(); raw == nil || err != nil {
		t.Errorf("no socket: %v", err)
	}
	if err := inside.CloseWrite(); err != nil {
		t.Error(err)
	}
	if _, err := host.Read(b); err != io.EOF {
		t.Errorf("the host reads with %v", err)
	}
	if err := host.Close(); err != nil {
		t.Error(err)
	}
	if _, err := inside.Read(b); err != io.EOF {
		t.Errorf("the host ended second, and is read with %v", err)
	}
}
