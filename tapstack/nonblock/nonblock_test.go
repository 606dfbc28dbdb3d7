package nonblock_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/tapstack/nonblock"
)

// pair returns two ends of a unix socket.
func pair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialed, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	a, b = dialed.(*net.UnixConn), accepted.(*net.UnixConn)
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func raw(t *testing.T, c *net.UnixConn) syscall.RawConn {
	t.Helper()
	r, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestErrors are those of a connection that was closed, is late, or has a peer that
// is gone.
func TestErrors(t *testing.T) {
	t.Parallel()
	p := make([]byte, 1<<20)
	for _, test := range []struct {
		name string
		do   func(a, b *net.UnixConn) error
		want error
	}{
		{"read after close", func(a, _ *net.UnixConn) error {
			r := nonblock.NewReader(raw(t, a))
			a.Close()
			_, err := r.Read(p)
			return err
		}, net.ErrClosed},
		{"write after close", func(a, _ *net.UnixConn) error {
			w := nonblock.NewWriter(raw(t, a))
			a.Close()
			_, err := w.Write(p)
			return err
		}, net.ErrClosed},
		{"read too late", func(a, _ *net.UnixConn) error {
			return errors.Join(a.SetReadDeadline(time.Unix(1, 0)), read(nonblock.NewReader(raw(t, a)), p))
		}, os.ErrDeadlineExceeded},
		{"a full socket until it is too late", func(a, _ *net.UnixConn) error {
			if err := a.SetWriteDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
				return err
			}
			n, err := nonblock.NewWriter(raw(t, a)).Write(p)
			if n == 0 || n == len(p) {
				t.Errorf("wrote %d, want a part", n)
			}
			return err
		}, os.ErrDeadlineExceeded},
		{"write to nobody", func(a, b *net.UnixConn) error {
			b.Close()
			_, err := nonblock.NewWriter(raw(t, a)).Write(p)
			return err
		}, syscall.EPIPE},
		{"read of the end", func(a, b *net.UnixConn) error {
			b.Close()
			return read(nonblock.NewReader(raw(t, a)), p)
		}, io.EOF},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			a, b := pair(t)
			if err := test.do(a, b); !errors.Is(err, test.want) {
				t.Errorf("%v, want %v", err, test.want)
			}
		})
	}
}

func read(r io.Reader, p []byte) error {
	_, err := r.Read(p)
	return err
}

// TestDescriptor that has nothing, or takes nothing, says EAGAIN.
func TestDescriptor(t *testing.T) {
	t.Parallel()
	a, _ := pair(t)
	err := raw(t, a).Control(func(fd uintptr) {
		p := make([]byte, 1<<16)
		if n, err := nonblock.Read(int(fd), p); n != 0 || err != syscall.EAGAIN {
			t.Errorf("read %d, %v; want EAGAIN", n, err)
		}
		var err error
		for range 1000 {
			if _, err = nonblock.Writev(int(fd), [][]byte{p, p}); err != nil {
				break
			}
		}
		if err != syscall.EAGAIN {
			t.Errorf("write to a full socket: %v, want EAGAIN", err)
		}
		if n, err := nonblock.Write(int(fd), p); n != 0 || err != syscall.EAGAIN {
			t.Errorf("wrote %d, %v; want EAGAIN", n, err)
		}
	})
	if err != nil {
		t.Error(err)
	}
	if n := nonblock.Waiting(-1); n != 0 {
		t.Errorf("%d bytes wait nowhere", n)
	}
	if _, err := nonblock.Read(-1, nil); err != syscall.EBADF {
		t.Errorf("no descriptor: %v, want EBADF", err)
	}
}

// TestStream passes what is written in pieces, by a writer that has to wait.
func TestStream(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	want := make([]byte, 3<<20)
	for i := range want {
		want[i] = byte(i * 7 >> 3)
	}
	var writing sync.WaitGroup
	writing.Go(func() {
		w := nonblock.NewWriter(raw(t, a))
		rest := want[:1<<20]
		for len(rest) > 0 {
			third := len(rest) / 3
			n, err := w.WriteSome(rest[:third], rest[third:2*third], rest[2*third:])
			if err != nil {
				t.Error(err)
				break
			}
			rest = rest[n:]
		}
		if n, err := w.Write(want[1<<20:]); n != 2<<20 || err != nil {
			t.Errorf("wrote %d, %v", n, err)
		}
		a.CloseWrite()
	})
	got, err := io.ReadAll(nonblock.NewReader(raw(t, b)))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v; want the %d that were written", len(got), err, len(want))
	}
	writing.Wait()
}

// TestAllocatesNothing for a message there and back.
func TestAllocatesNothing(t *testing.T) {
	a, b := pair(t)
	w, r := nonblock.NewWriter(raw(t, a)), nonblock.NewReader(raw(t, b))
	p := make([]byte, 512)
	n := testing.AllocsPerRun(200, func() {
		if _, err := w.WriteSome(p[:256], p[256:]); err != nil {
			t.Error(err)
		}
		if _, err := r.Read(p); err != nil {
			t.Error(err)
		}
	})
	if n != 0 {
		t.Errorf("a message allocates %v times, want 0", n)
	}
}
