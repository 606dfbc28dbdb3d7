package netstack

import (
	"math/rand/v2"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// queueLimit is how many bytes may wait for the stream before segments with
	// payload are made to wait. It is more than the send buffer of one connection, which
	// then waits there, not here with a lock in hand.
	queueLimit = 4 << 20
	// quietLimit is where a flow is made to wait of which nothing waits and which has
	// little to send.
	quietLimit = 5 << 20
	// queueHardLimit is where everything else is dropped. It is beyond queueLimit,
	// so that bulk data does not push out acknowledgements and DNS answers.
	queueHardLimit = 6 << 20
	// takeBytes is where one take ends: what comes later may overtake the rest.
	takeBytes = 256 << 10
	// packetCost is what a packet takes beside its bytes.
	packetCost = 512
)

// A queue holds the packets between the stack's many goroutines and the one
// writer of the stream.
//
//	         open                     push    queued, written by the writer
//	closed ────────► opened ───────►  push    waits above queueLimit (payload), or quietLimit
//	       ◄────────                  push    dropped above queueHardLimit
//	         close   (what is left is dropped; who waits, goes on)
//
// The flows share the stream fairly, whatever waits: each has a bucket, and the
// buckets take turns. One that was empty comes before all that were not, so that
// a small answer does not wait for the bulk of others. It is deficit round robin
// with new flows first, as fq_codel has it (RFC 8290, section 4). Packets of one
// flow keep their order.
//
//	        first packet            quantum used, or empty
//	idle ────────────────► fresh ───────────────────────────► old ◄─┐ quantum used
//	  ▲                                                        │ └──┘
//	  └────────────────────────────────────────────────────────┘ its turn, and empty
type queue struct {
	counts *counters
	seed   uint32 // so that nobody outside can choose whose bucket to share

	mu         sync.Mutex
	more       sync.Cond // for the writer: something waits, or closed
	room       sync.Cond // for senders: below quietLimit, and so perhaps below theirs, or closed
	opened     bool
	waiting    int // packets
	bytes      int // what those cost, and those taken but not yet written
	buckets    [queueBuckets]bucket
	fresh, old turns
	acks       delayedAcks
	late       []*stack.PacketBuffer // of a tick
}

func newQueue(counts *counters) *queue {
	q := &queue{counts: counts, seed: rand.Uint32()}
	q.more.L = &q.mu
	q.room.L = &q.mu
	return q
}

// push queues the packet, or drops and counts it. The queue takes its own
// reference.
func (q *queue) push(p *stack.PacketBuffer, mayWait bool) {
	hash := flowHash(p, q.seed)
	q.mu.Lock()
	defer q.mu.Unlock()
	for mayWait && q.opened && q.bytes > q.limit(p, hash) {
		q.room.Wait()
	}
	if !q.opened {
		q.counts.dropNoStream.Add(1)
		return
	}
	if q.bytes+cost(p) > queueHardLimit {
		q.counts.dropQueueFull.Add(1)
		return
	}
	if p.TransportProtocolNumber == header.TCPProtocolNumber {
		idle := len(q.acks.listed) == 0
		before, held := q.acks.pass(p, hash)
		if before != nil {
			q.add(before, hash) // one place, so one bucket
		}
		if held {
			if idle {
				q.startTicks()
			}
			return
		}
	}
	q.add(p.IncRef(), hash)
}

// limit is above how many bytes a packet with payload is made to wait.
func (q *queue) limit(p *stack.PacketBuffer, hash uint32) int {
	if q.buckets[uint8(hash)].empty() && cost(p) <= freshQuantum {
		return quietLimit
	}
	return queueLimit
}

// add queues the packet, with its reference.
func (q *queue) add(p *stack.PacketBuffer, hash uint32) {
	at := uint8(hash)
	q.bytes += cost(p)
	b := &q.buckets[at]
	b.push(p)
	if !b.listed {
		b.listed, b.deficit = true, freshQuantum
		q.fresh.push(at)
	}
	if q.waiting++; q.waiting == 1 {
		q.more.Signal()
	}
}

// startTicks sees to it that what is held leaves in time.
func (q *queue) startTicks() {
	if q.acks.timer == nil {
		q.acks.timer = time.AfterFunc(ackTick, q.tick)
		return
	}
	q.acks.timer.Reset(ackTick)
}

// tick queues acknowledgements that were held for long enough.
func (q *queue) tick() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.late = q.acks.tick(q.late[:0])
	for _, p := range q.late {
		q.add(p, flowHash(p, q.seed))
	}
	clear(q.late)
	if len(q.acks.listed) > 0 {
		q.startTicks()
	}
}

// take waits for packets and returns some, in spare, which it may replace: the
// caller owns the references. It returns nil when the queue is closed.
func (q *queue) take(spare []*stack.PacketBuffer) []*stack.PacketBuffer {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.opened && q.waiting == 0 {
		q.more.Wait()
	}
	if !q.opened {
		return nil
	}
	taken, size := spare[:0], 0
	for q.waiting > 0 && size < takeBytes {
		p := q.next()
		size += cost(p)
		taken = append(taken, p)
	}
	return taken
}

// next takes the packet whose turn it is; there is one.
func (q *queue) next() *stack.PacketBuffer {
	for {
		list, isOld := &q.fresh, false
		if list.count == 0 {
			list, isOld = &q.old, true
		}
		at := list.ring[list.first]
		b := &q.buckets[at]
		if !b.empty() && b.deficit > 0 {
			p := b.pop()
			b.deficit -= cost(p)
			q.waiting--
			return p
		}
		list.pop()
		if b.empty() && isOld {
			b.listed = false
			continue
		}
		if b.deficit <= 0 {
			b.deficit += quantum
		}
		q.old.push(at)
	}
}

// written says that taken packets have left.
func (q *queue) written(packets []*stack.PacketBuffer) {
	n := 0
	for _, p := range packets {
		n += cost(p)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.bytes -= n
	if q.bytes <= quietLimit {
		q.room.Broadcast()
	}
}

// sizes are the bytes that wait for the writer, or are being written, and how many
// acknowledgements were not needed.
func (q *queue) sizes() (waiting int, spared uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes, q.acks.spared
}

func (q *queue) open() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.opened = true
	q.bytes = 0
}

// close drops what is queued and lets everybody go who waits.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.opened = false
	q.counts.dropNoStream.Add(uint64(q.waiting))
	for i := range q.buckets {
		release(q.buckets[i].packets[q.buckets[i].first:])
	}
	q.waiting, q.buckets, q.fresh, q.old = 0, [queueBuckets]bucket{}, turns{}, turns{}
	if q.acks.timer != nil {
		q.acks.timer.Stop()
	}
	q.acks.forget()
	q.more.Broadcast()
	q.room.Broadcast()
}

// cost is what a packet counts for.
func cost(p *stack.PacketBuffer) int { return packetCost + p.Size() }

// release gives up the references.
func release(packets []*stack.PacketBuffer) {
	for i, p := range packets {
		p.DecRef()
		packets[i] = nil
	}
}
