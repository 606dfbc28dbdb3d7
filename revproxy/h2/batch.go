package h2

import "io"

// keepSmall is how large the buffers of small frames may be that are kept.
const keepSmall = 4 << 10

// A batch is what is sent at once. It belongs to whoever sends.
type batch struct {
	pieces [][]byte // frames, in their order
	out    []byte   // the first piece's
	small  []byte   // where frames are that are in no chunk
	chunks []*chunk // sent as a whole
	parts  []*chunk // of which a part is sent
	record []byte   // where small pieces share a record
}

// send writes the pieces: those that are large as they are, each a TLS record, others
// together.
func (b *batch) send(c *conn) error {
	if c.batched == nil {
		return b.write(c.nc)
	}
	room := c.server.rooms.get()
	c.batched.hold(room)
	err := b.write(c.nc)
	if rerr := c.batched.release(); err == nil {
		err = rerr
	}
	c.server.rooms.pool.Put(room)
	return err
}

func (b *batch) write(w io.Writer) error {
	if len(b.pieces) == 1 {
		_, err := w.Write(b.pieces[0])
		return err
	}
	b.record = b.record[:0]
	for _, p := range b.pieces {
		if len(b.record) > 0 && (len(p) >= ownRecord || len(b.record)+len(p) > maxRecord) {
			if _, err := w.Write(b.record); err != nil {
				return err
			}
			b.record = b.record[:0]
		}
		if len(p) < ownRecord {
			b.record = append(b.record, p...)
			continue
		}
		if _, err := w.Write(p); err != nil {
			return err
		}
	}
	if len(b.record) == 0 {
		return nil
	}
	_, err := w.Write(b.record)
	return err
}

// release gives back what was sent.
func (b *batch) release(to *sender) {
	for _, k := range b.chunks {
		to.takeBack(k)
	}
	for _, k := range b.parts {
		k.busy = false
	}
	clear(b.pieces)
	clear(b.chunks)
	clear(b.parts)
	b.pieces, b.chunks, b.parts = b.pieces[:0], b.chunks[:0], b.parts[:0]
	for _, p := range []*[]byte{&b.out, &b.small, &b.record} {
		if *p = (*p)[:0]; cap(*p) > keepSmall {
			*p = nil
		}
	}
}
