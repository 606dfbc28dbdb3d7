package telemetry

import "sync"

const (
	// maxWaiting bounds the bytes of records that wait for the host.
	maxWaiting = 256 << 10
	// recordCost is what a waiting record is taken to cost beside its bytes.
	recordCost = 48
)

// A ring holds records between those who tell and a host that may not read. When
// it is full the oldest go: what happens now matters more.
type ring struct {
	limit int
	wake  chan struct{} // holds one token when there is something to take

	mu                   sync.Mutex
	records              []waiting
	bytes                int
	lostLogs, lostEvents uint64
}

type waiting struct {
	bytes []byte
	log   bool
}

func newRing(limit int) *ring { return &ring{limit: limit, wake: make(chan struct{}, 1)} }

// add puts a record behind the others. It owns the bytes.
func (r *ring) add(record []byte, log bool) {
	r.mu.Lock()
	r.records = append(r.records, waiting{record, log})
	r.bytes += len(record) + recordCost
	for r.bytes > r.limit {
		oldest := r.pop()
		r.count(oldest)
	}
	r.mu.Unlock()
	r.signal()
}

func (r *ring) signal() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// pop takes the oldest record out, with the lock held.
func (r *ring) pop() waiting {
	oldest := r.records[0]
	r.records[0] = waiting{} // the array lives on, the bytes need not
	r.records = r.records[1:]
	r.bytes -= len(oldest.bytes) + recordCost
	return oldest
}

// count counts a record as lost, with the lock held.
func (r *ring) count(w waiting) {
	if w.log {
		r.lostLogs++
	} else {
		r.lostEvents++
	}
}

// take appends records while dst stays within size, but at least one, and says
// how many of each kind.
func (r *ring) take(dst []byte, size int) (_ []byte, logs, events uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.records) > 0 && (len(dst) == 0 || len(dst)+len(r.records[0].bytes) <= size) {
		w := r.pop()
		dst = append(dst, w.bytes...)
		if w.log {
			logs++
		} else {
			events++
		}
	}
	if len(r.records) == 0 {
		r.records = nil
	}
	return dst, logs, events
}

// lose counts records as lost that were taken and did not arrive.
func (r *ring) lose(logs, events uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lostLogs += logs
	r.lostEvents += events
}

func (r *ring) lost() (logs, events uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lostLogs, r.lostEvents
}
