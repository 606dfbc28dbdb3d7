package netstack

import (
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
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
	size := cost(p)
	n := 0
	for ; c.dropQueueFull.Load() == 0; n++ {
		q.push(p, false)
	}
	if want := queueHardLimit/size + 1; n != want {
		t.Errorf("packet %d was dropped first, want %d: what may not wait goes up to the hard limit", n, want)
	}
	var waiting sync.WaitGroup
	waiting.Go(func() { q.push(p, true) })
	for left := (n - 1) * size; left > queueLimit; {
		taken := q.take(nil)
		left -= len(taken) * size
		q.written(taken)
		release(taken)
	}
	waiting.Wait() // below the limit again, the sender goes on
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

// TestQuietFlowDoesNotWait where bulk of others has to, but for room that is left for
// what cannot wait.
func TestQuietFlowDoesNotWait(t *testing.T) {
	t.Parallel()
	const bulk, quiet = 1, 2
	tests := []struct {
		name       string
		queued     int // bytes of the bulk flow, at least
		port, size int
		waits      bool
	}{
		{"bulk", queueLimit, bulk, 1400, true},
		{"a large packet of a flow of which nothing waits", queueLimit, quiet, 60000, true},
		{"a small one, where the rest is for what cannot wait", quietLimit, quiet, 1400, true},
		{"a small one", queueLimit, quiet, 1400, false},
		{"bulk below the limit", queueLimit / 2, bulk, 60000, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				q := newQueue(new(counters))
				q.seed = 1 // with which the flows have a bucket each
				q.open()
				fill := flowPacket(bulk, 0, 60000)
				defer fill.DecRef()
				for q.bytes <= tt.queued {
					q.push(fill, false)
				}
				p := flowPacket(tt.port, 0, tt.size)
				defer p.DecRef()
				var pushed atomic.Bool
				go func() {
					q.push(p, true)
					pushed.Store(true)
				}()
				synctest.Wait()
				if pushed.Load() == tt.waits {
					t.Errorf("it waits: %t, want %t", !pushed.Load(), tt.waits)
				}
				q.close()
			})
		})
	}
}

// flowPacket is a packet of the flow from that port, whose payload says its number.
func flowPacket(port, number, size int) *stack.PacketBuffer {
	data := make([]byte, size)
	binary.BigEndian.PutUint32(data, uint32(number))
	p := segment(data, 1460)
	binary.BigEndian.PutUint16(p.TransportHeader().Slice(), uint16(port))
	return p
}

func portOf(p *stack.PacketBuffer) int {
	return int(binary.BigEndian.Uint16(p.TransportHeader().Slice()))
}

func numberOf(p *stack.PacketBuffer) int {
	return int(binary.BigEndian.Uint32(p.Data().AsRange().ToSlice()))
}

// TestQueueKeepsFlowsInOrder, each by itself, whatever the sizes and the moments.
func TestQueueKeepsFlowsInOrder(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	q := newQueue(new(counters))
	q.open()
	pushed, got := map[int]int{}, map[int]int{}
	var spare []*stack.PacketBuffer
	takeSome := func() {
		spare = q.take(spare)
		for _, p := range spare {
			if n := numberOf(p); n != got[portOf(p)] {
				t.Fatalf("flow %d: packet %d comes where %d should", portOf(p), n, got[portOf(p)])
			}
			got[portOf(p)]++
		}
		q.written(spare)
		release(spare)
	}
	for range 4000 {
		port := 1 + r.IntN(600) // more than there are buckets
		p := flowPacket(port, pushed[port], 4+r.IntN([]int{20, 1400, 60000}[port%3]))
		q.push(p, false)
		p.DecRef()
		pushed[port]++
		for q.bytes > queueLimit || (q.waiting > 0 && r.IntN(8) == 0) {
			takeSome()
		}
	}
	for q.waiting > 0 {
		takeSome()
	}
	if !maps.Equal(pushed, got) || q.bytes != 0 {
		t.Errorf("not all that was queued was taken; %d bytes are left", q.bytes)
	}
}

// TestQueueIsFair: a small packet leaves with the next write, however much others
// have queued before it, and those share what is left.
func TestQueueIsFair(t *testing.T) {
	t.Parallel()
	q := newQueue(new(counters))
	q.seed = 1 // for which no two of these flows share a bucket
	q.open()
	const bulk = 8
	for n := range 8 {
		for port := 1; port <= bulk; port++ {
			p := flowPacket(port, n, 60000)
			q.push(p, false)
			p.DecRef()
		}
	}
	small := flowPacket(99, 0, 12)
	for q.fresh.count > 0 { // all flows have had a turn
		release(q.take(nil))
	}
	q.push(small, true)
	small.DecRef()
	taken := q.take(nil)
	if portOf(taken[0]) != 99 {
		t.Errorf("the small packet does not leave first: flow %d does", portOf(taken[0]))
	}
	release(taken)
	// Pushed again at once it is no longer new, but it has its turn.
	seen := map[int]int{}
	for q.waiting > 0 {
		taken := q.take(nil)
		for _, p := range taken {
			seen[portOf(p)]++
		}
		release(taken)
		most, least := 0, 100
		for port := 1; port <= bulk; port++ {
			most, least = max(most, seen[port]), min(least, seen[port])
		}
		if most-least > 2 {
			t.Fatalf("shares are unequal: %v", seen)
		}
	}
}

func TestQueueAllocatesNothing(t *testing.T) {
	q := newQueue(new(counters))
	q.open()
	small, large := flowPacket(1, 0, 12), flowPacket(2, 0, 60000)
	defer small.DecRef()
	defer large.DecRef()
	spare := make([]*stack.PacketBuffer, 0, 64)
	n := testing.AllocsPerRun(1000, func() {
		for range 4 {
			q.push(small, true)
			q.push(large, true)
		}
		for q.waiting > 0 {
			spare = q.take(spare)
			q.written(spare)
			release(spare)
		}
	})
	if n != 0 {
		t.Errorf("the queue allocates %v times, want 0", n)
	}
}

// TestBucketForgets what a flood made it hold.
func TestBucketForgets(t *testing.T) {
	t.Parallel()
	p := flowPacket(1, 0, 12)
	defer p.DecRef()
	var b bucket
	for range 4 * keptPackets {
		b.push(p)
	}
	for !b.empty() {
		b.pop()
	}
	if b.packets != nil {
		t.Errorf("an empty bucket has room for %d packets", cap(b.packets))
	}
	for range 10 * keptPackets { // never empty, and never longer
		b.push(p)
		b.push(p)
		b.pop()
		if len(b.packets)-b.first > 2 {
			b.pop()
		}
	}
	if cap(b.packets) > 64 {
		t.Errorf("a bucket of few packets has room for %d", cap(b.packets))
	}
}

// TestFlowHash: the packets of a connection have one hash, whatever else is in them.
func TestFlowHash(t *testing.T) {
	t.Parallel()
	a, b, other := flowPacket(1, 0, 12), flowPacket(1, 7, 60000), flowPacket(2, 0, 12)
	arp := packet(numbered(42), nil)
	for _, p := range []*stack.PacketBuffer{a, b, other, arp} {
		defer p.DecRef()
	}
	if flowHash(a, 1) != flowHash(b, 1) || flowHash(a, 1) == flowHash(other, 1) || flowHash(a, 1) == flowHash(a, 2) {
		t.Error("the hash is not of the connection and the seed")
	}
	if flowHash(arp, 1) != 0 {
		t.Error("what is no IP has a hash")
	}
	header.IPv4(a.NetworkHeader().Slice()).SetFlagsFragmentOffset(header.IPv4FlagMoreFragments, 0)
	header.IPv4(other.NetworkHeader().Slice()).SetFlagsFragmentOffset(0, 8)
	if flowHash(a, 1) != flowHash(other, 1) {
		t.Error("fragments of one address part")
	}
}
