package relay

import (
	"io"
	"net"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPooledBufferAllocatesNothing(t *testing.T) {
	_, warm := borrow(DefaultBufferSize)
	giveBack(warm)
	allocs := testing.AllocsPerRun(200, func() {
		_, b := borrow(DefaultBufferSize)
		giveBack(b)
	})
	// AllocsPerRun rounds down, which forgives a collection that empties the
	// pool, and the race detector, under which a pool drops one value in four.
	if allocs != 0 {
		t.Fatalf("borrow and giveBack allocate %v times", allocs)
	}
}

func TestBorrowGivesTheSizeAskedFor(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 4096, DefaultBufferSize, DefaultBufferSize + 1} {
		buf, pooled := borrow(size)
		if len(buf) != size {
			t.Errorf("borrow(%d) gave %d bytes", size, len(buf))
		}
		if (pooled != nil) != (size <= DefaultBufferSize) {
			t.Errorf("borrow(%d): pooled is %t", size, pooled != nil)
		}
		giveBack(pooled)
	}
}

// TestQuietSourceHoldsNoBuffer looks at a socket as the poller does: before
// anything has come, and after.
func TestQuietSourceHoldsNoBuffer(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	far, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	near, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	s := newSource(near, DefaultBufferSize)
	defer s.done()
	if s.raw == nil {
		t.Skipf("needs sockets that can be read raw (remedy: a unix system)")
	}
	if err := s.raw.Control(func(fd uintptr) {
		if s.readSocket(fd) || s.buf != nil {
			t.Errorf("with nothing to read it holds %d bytes", len(s.buf))
		}
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(far, "something"); err != nil {
		t.Fatal(err)
	}
	if got, err := s.next(); string(got) != "something" || err != nil {
		t.Errorf("next = %q, %v", got, err)
	}
}
