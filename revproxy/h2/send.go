package h2

import (
	"bytes"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/net/http2/hpack"
)

const (
	// batchSize is how much is sent at once: eight full records of TLS.
	batchSize = 8 * frameSize
	// sendStream is how many chunks of a stream may wait, besides those that its
	// handler fills, unless the connection has lent lendTotal: then it has one.
	sendStream = 4
	lendTotal  = 128
	// maxPending is how many bytes of HEADERS and control frames may wait until the
	// client's frames are left unread.
	maxPending = 64 << 10
	// ownRecord is what is not worth copying to share a TLS record with others.
	ownRecord = 4 << 10
	// maxRecord is the content of a TLS record (RFC 8446 section 5.1).
	maxRecord = 16 << 10
)

// A chunk is content of an answer with room for a frame's head before it: a DATA
// frame that, if full, is a TLS record. What is sent is never before the next
// frame's head, so that a chunk can be sent in parts.
type chunk struct {
	r, w  int  // what is in bytes and not sent
	busy  bool // a part of it is being sent
	bytes [maxRecord]byte
}

func (k *chunk) room() int { return len(k.bytes) - k.w }

// frame takes n bytes out, as a DATA frame.
func (k *chunk) frame(n int, id uint32, end bool) []byte {
	var flags uint8
	if end {
		flags = flagEndStream
	}
	at := k.r - headSize
	appendHead(k.bytes[at:at], n, typeData, flags, id)
	k.r += n
	return k.bytes[at:k.r]
}

// chunks are those that nobody uses.
type chunks struct{ pool sync.Pool }

func (p *chunks) get() *chunk {
	k, ok := p.pool.Get().(*chunk)
	if !ok {
		k = new(chunk)
	}
	k.r, k.w = headSize, headSize
	return k
}

func (p *chunks) put(k *chunk) {
	if !k.busy { // or it is the garbage collector's
		p.pool.Put(k)
	}
}

// A sender is the half of a connection that sends. The connection's mutex guards it.
type sender struct {
	conn    *conn
	encoder *hpack.Encoder
	block   bytes.Buffer
	out     []byte       // HEADERS and control frames, in the order in which they are sent
	window  int64        // of the connection
	initial int64        // window of new streams
	lent    atomic.Int64 // chunks, to handlers and to what waits or is being sent
	ring    ring         // streams with something that may be sent
	sending bool         // somebody does
	handed  bool         // it is the writer's turn
	writer  bool         // it runs
	turn    sync.Cond
	pressed sync.Cond // of the reader, until out is taken
	batch   batch     // whose turn it is
}

func (s *sender) init(c *conn) {
	s.conn = c
	s.encoder = hpack.NewEncoder(&s.block)
	s.encoder.SetMaxDynamicTableSizeLimit(headerTableSize)
	s.window, s.initial = initialWindow, initialWindow
	s.turn.L, s.pressed.L = &c.mu, &c.mu
}

// lend gives a chunk to a handler.
func (s *sender) lend() *chunk {
	s.lent.Add(1)
	return s.conn.server.chunks.get()
}

func (s *sender) takeBack(k *chunk) {
	s.lent.Add(-1)
	s.conn.server.chunks.put(k)
}

// lentAll reports whether the connection's streams have as many chunks as they may
// without waiting for each other. Each may have one in any case: what its client does
// not take must not stop the others.
func (s *sender) lentAll() bool { return s.lent.Load() >= lendTotal }

// crowded reports whether a stream has to wait until something was sent.
func (st *stream) crowded() bool {
	n := len(st.queue)
	return n >= sendStream || n > 0 && st.conn.lentAll()
}

// awaitRoom waits for room for one more chunk, or for the stream's end. The connection's
// mutex is held.
func (st *stream) awaitRoom() {
	for !st.gone && st.crowded() {
		if st.conn.push(true); !st.gone && st.crowded() {
			st.room.Wait()
		}
	}
}

// queue adds a chunk to a stream, or its content to the last.
func (s *sender) queue(st *stream, k *chunk) {
	if n := len(st.queue); n > 0 {
		if last := st.queue[n-1]; last.room() >= k.w-k.r {
			last.w += copy(last.bytes[last.w:], k.bytes[k.r:k.w])
			s.takeBack(k)
			return
		}
	}
	st.queue = append(st.queue, k)
	s.enlist(st)
}

// enlist has a stream take its turn, if it has something that may be sent.
func (s *sender) enlist(st *stream) {
	if !st.listed && st.ready() {
		s.ring.push(st)
	}
}

// ready reports whether a stream has something that its own window lets pass.
func (st *stream) ready() bool {
	if st.gone {
		return false
	}
	if len(st.queue) > 0 {
		return st.window > 0
	}
	return st.fin != finNone
}

// sendFields sends HEADERS, final or informational. If the answer ends with them, so
// does the stream.
func (s *sender) sendFields(st *stream, status int, fields []hpack.HeaderField, end bool) {
	s.block.Reset()
	s.encode(hpack.HeaderField{Name: ":status", Value: strconv.Itoa(status)})
	s.encodeAll(fields)
	s.out = appendBlock(s.out, s.block.Bytes(), st.id, end)
	if end {
		s.out = s.finish(st, s.out)
	}
}

func (s *sender) encodeAll(fields []hpack.HeaderField) {
	for _, f := range fields {
		if f.Name = s.conn.names.lower(f.Name); f.Name != "" {
			s.encode(f)
		}
	}
}

func (s *sender) encode(f hpack.HeaderField) {
	_ = s.encoder.WriteField(f) // into a buffer, which takes everything
}

// finish ends a stream whose END_STREAM was appended. A client that still sends is
// told to stop (RFC 9113 section 8.1).
func (s *sender) finish(st *stream, b []byte) []byte {
	st.fin = finEnd
	if !st.remoteDone {
		b = appendReset(b, st.id, codeNo)
	} else {
		s.conn.vain = 0
	}
	s.conn.drop(st, errDone)
	return b
}

// push has sent what there is to send, unless somebody is sending, who then goes on
// with it. Inline it is the caller who sends, once; mu is not held meanwhile.
func (s *sender) push(inline bool) {
	if s.sending || s.conn.closed || len(s.out) == 0 && s.ring.n == 0 {
		return
	}
	s.sending = true
	if inline && !s.sendOnce() {
		s.sending = false
		return
	}
	s.handed = true
	if !s.writer {
		s.writer = true
		s.conn.running.Go(s.write)
		return
	}
	s.turn.Signal()
}

// write sends whenever it is its turn, until there is no stream any more: an idle
// connection has no writer.
func (s *sender) write() {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	for {
		for !s.handed && !s.conn.closed && len(s.conn.streams) > 0 {
			s.turn.Wait()
		}
		if s.conn.closed || !s.handed {
			s.writer = false
			return
		}
		for s.sendOnce() {
		}
		s.handed, s.sending = false, false
	}
}

// sendOnce sends a batch. It reports whether there may be more.
func (s *sender) sendOnce() bool {
	if s.conn.closed || !s.gather() {
		return false
	}
	s.conn.mu.Unlock()
	err := s.batch.send(s.conn)
	s.conn.mu.Lock()
	s.batch.release(s)
	if err != nil {
		s.conn.failLocked(err)
		return false
	}
	return len(s.out) > 0 || s.ring.n > 0
}

// gather makes a batch. It reports whether there is anything in it.
func (s *sender) gather() bool {
	b := &s.batch
	if len(s.out) > 0 {
		s.out, b.out = b.out[:0], s.out
		b.pieces = append(b.pieces, b.out)
		s.pressed.Broadcast()
	}
	for blocked, left := 0, batchSize; left > 0 && blocked < s.ring.n; {
		st := s.ring.pop()
		if st.gone {
			continue
		}
		n := s.take(st)
		if n == 0 {
			blocked++ // by the connection's window
		} else {
			blocked = 0
		}
		left -= n
		s.enlist(st)
	}
	return len(b.pieces) > 0
}

// take takes a frame of a stream whose turn it is. It returns its size, 0 if the
// connection's window is shut.
func (s *sender) take(st *stream) int {
	b := &s.batch
	if len(st.queue) == 0 {
		if st.fin == finNone {
			return 0
		}
		begin := len(b.small)
		b.small = s.appendFin(st, b.small)
		b.pieces = append(b.pieces, b.small[begin:])
		return len(b.small) - begin
	}
	k := st.queue[0]
	n := int(min(int64(k.w-k.r), st.window, s.window))
	if n <= 0 {
		return 0
	}
	whole := n == k.w-k.r
	end := whole && len(st.queue) == 1 && st.fin == finEnd && len(st.trailing) == 0
	b.pieces = append(b.pieces, k.frame(n, st.id, end))
	st.window -= int64(n)
	s.window -= int64(n)
	s.conn.vain = 0
	if whole {
		st.queue[0] = nil
		st.queue = st.queue[1:]
		b.chunks = append(b.chunks, k)
		st.room.Signal()
	} else {
		k.busy = true
		b.parts = append(b.parts, k)
	}
	if end {
		begin := len(b.small)
		if b.small = s.finish(st, b.small); len(b.small) > begin {
			b.pieces = append(b.pieces, b.small[begin:])
		}
	}
	return n + headSize
}

// appendFin appends what ends an answer whose content was sent.
func (s *sender) appendFin(st *stream, b []byte) []byte {
	switch {
	case st.fin == finReset:
		b = appendReset(b, st.id, st.finCode)
		s.conn.drop(st, errDone)
		return b
	case len(st.trailing) > 0:
		s.block.Reset()
		s.encodeAll(st.trailing)
		b = appendBlock(b, s.block.Bytes(), st.id, true)
	default:
		b = appendHead(b, 0, typeData, flagEndStream, st.id)
	}
	return s.finish(st, b)
}

// sendContinue tells the client to send its body.
func (c *conn) sendContinue(st *stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if st.gone || st.response.committed {
		return
	}
	c.sendFields(st, 100, nil, false)
	c.push(true)
}

// A ring holds streams in the order of their turns.
type ring struct {
	first, last *stream
	n           int
}

func (r *ring) push(st *stream) {
	st.listed = true
	if r.last == nil {
		r.first = st
	} else {
		r.last.behind = st
	}
	r.last = st
	r.n++
}

func (r *ring) pop() *stream {
	st := r.first
	if r.first = st.behind; r.first == nil {
		r.last = nil
	}
	st.behind, st.listed = nil, false
	r.n--
	return st
}
