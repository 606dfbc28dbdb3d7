package relay

import "sync"

// A buffer is pooled by its pointer: a slice in a sync.Pool would cost an
// allocation for its header on every Put.
type buffer [DefaultBufferSize]byte

// buffers caches memory and holds no state; relays of the whole process share it.
var buffers = sync.Pool{New: func() any { return new(buffer) }}

// borrow returns size bytes to copy through, and the pooled buffer that they
// belong to, which is nil if they are too many for one.
func borrow(size int) ([]byte, *buffer) {
	if size > DefaultBufferSize {
		return make([]byte, size), nil
	}
	b := buffers.Get().(*buffer)
	return b[:size], b
}

// giveBack returns what borrow lent.
func giveBack(b *buffer) {
	if b != nil {
		buffers.Put(b)
	}
}
