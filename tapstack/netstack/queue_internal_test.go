package netstack

import (
	"sync"
	"testing"
)

func TestQueueDropsWithoutStream(t *testing.T) {
	t.Parallel()
	var c counters
	q := newQueue(&c)
	p := packet(numbered(54), nil)
	defer p.DecRef()
	q.push(p, true)
	q.open()
	q.push(p, true)
	q.close()
	if got := c.dropNoStream.Load(); got != 2 {
		t.Errorf("%d drops counted, want 2: one before the stream, one left at its end", got)
	}
	if p.ReadRefs() != 1 {
		t.Errorf("%d references are held, want the test's own", p.ReadRefs())
	}
	if q.take(nil) != nil {
		t.Error("a closed queue gave packets")
	}
}

func TestQueueLimits(t *testing.T) {
	t.Parallel()
	var c counters
	q := newQueue(&c)
	q.open()
	p := packet(numbered(54), make([]byte, 1<<16-100))
	defer p.DecRef()
	size := p.Size()
	n := 0
	for ; c.dropQueueFull.Load() == 0; n++ {
		q.push(p, false)
	}
	if want := queueHardLimit/size + 1; n != want {
		t.Errorf("packet %d was dropped first, want %d: what may not wait goes up to the hard limit", n, want)
	}
	var waiting sync.WaitGroup
	waiting.Go(func() { q.push(p, true) })
	taken := q.take(nil)
	q.written(len(taken) * size)
	waiting.Wait() // below the limit again, the sender goes on
	if got := q.take(nil); len(got) != 1 {
		t.Errorf("%d packets after the wait, want the one that waited", len(got))
	} else {
		release(got)
	}
	release(taken)
	q.close()
	if p.ReadRefs() != 1 {
		t.Errorf("%d references are held, want the test's own", p.ReadRefs())
	}
}

func TestQueueCloseLetsSendersGo(t *testing.T) {
	t.Parallel()
	var c counters
	q := newQueue(&c)
	q.open()
	p := packet(numbered(54), make([]byte, 1<<16-100))
	defer p.DecRef()
	for q.bytes <= queueLimit {
		q.push(p, false)
	}
	var waiting sync.WaitGroup
	for range 4 {
		waiting.Go(func() { q.push(p, true) })
	}
	q.close()
	waiting.Wait()
	if p.ReadRefs() != 1 {
		t.Errorf("%d references are held, want the test's own", p.ReadRefs())
	}
}
