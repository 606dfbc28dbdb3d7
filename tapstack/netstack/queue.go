package netstack

import (
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// queueLimit is how many bytes may wait for the stream before segments with
	// payload are made to wait. More would only add to the delay of every other
	// flow: at 1 GB/s a full queue is one millisecond.
	queueLimit = 1 << 20
	// queueHardLimit is where everything else is dropped. It is beyond queueLimit,
	// so that bulk data does not push out acknowledgements and DNS answers.
	queueHardLimit = 2 << 20
)

// A queue holds the packets between the stack's many goroutines and the one
// writer of the stream.
//
//	         open                     push    queued, written by the writer
//	closed ────────► opened ───────►  push    waits above queueLimit (payload)
//	       ◄────────                  push    dropped above queueHardLimit
//	         close   (what is left is dropped; who waits, goes on)
type queue struct {
	counts *counters

	mu      sync.Mutex
	more    sync.Cond // for the writer: pending is not empty, or closed
	room    sync.Cond // for senders: below queueLimit, or closed
	opened  bool
	pending []*stack.PacketBuffer
	bytes   int // pending, and taken but not yet written
}

func newQueue(counts *counters) *queue {
	q := &queue{counts: counts}
	q.more.L = &q.mu
	q.room.L = &q.mu
	return q
}

// push queues the packet, or drops and counts it. The queue takes its own
// reference.
func (q *queue) push(p *stack.PacketBuffer, mayWait bool) {
	size := p.Size()
	q.mu.Lock()
	defer q.mu.Unlock()
	for mayWait && q.opened && q.bytes > queueLimit {
		q.room.Wait()
	}
	if !q.opened {
		q.counts.dropNoStream.Add(1)
		return
	}
	if q.bytes+size > queueHardLimit {
		q.counts.dropQueueFull.Add(1)
		return
	}
	q.bytes += size
	q.pending = append(q.pending, p.IncRef())
	if len(q.pending) == 1 {
		q.more.Signal()
	}
}

// take waits for packets and returns all there are, in the order of push; the
// caller owns the references. spare is a slice to use for the next ones. It
// returns nil when the queue is closed.
func (q *queue) take(spare []*stack.PacketBuffer) []*stack.PacketBuffer {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.opened && len(q.pending) == 0 {
		q.more.Wait()
	}
	if !q.opened {
		return nil
	}
	taken := q.pending
	q.pending = spare[:0]
	return taken
}

// written says that taken packets of n bytes have left.
func (q *queue) written(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.bytes -= n
	if q.bytes <= queueLimit {
		q.room.Broadcast()
	}
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
	q.counts.dropNoStream.Add(uint64(len(q.pending)))
	release(q.pending)
	q.pending = nil
	q.more.Broadcast()
	q.room.Broadcast()
}

// release gives up the references.
func release(packets []*stack.PacketBuffer) {
	for i, p := range packets {
		p.DecRef()
		packets[i] = nil
	}
}
