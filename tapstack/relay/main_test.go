package relay

import (
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
