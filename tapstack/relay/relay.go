// Package relay joins two connections: what one says, the other hears, to the
// last byte and the true end. It dials nothing, accepts nothing, and knows
// neither of VSOCK nor of what is said; gateway, publish and front do.
package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultBufferSize is the size of the buffer that each direction copies
// through unless Options says otherwise. System calls are most of what bulk data
// costs, so it is several times what a socket delivers at once on the way; a
// connection that is quiet holds none.
const DefaultBufferSize = 256 << 10

// ErrIdle reports that no byte moved in either direction for the idle timeout.
// Both connections are closed; the caller has nothing left to do but to count.
var ErrIdle = errors.New("relay: idle for too long")

// A Side is one of the two connections of a relay.
type Side int

// The sides, in the order of Relay's arguments. NoSide is neither: the relay
// was ended from outside, by its context or its idle timeout.
const (
	NoSide Side = iota
	SideA
	SideB
)

// String returns "a", "b" or "none".
func (s Side) String() string {
	switch s {
	case SideA:
		return "a"
	case SideB:
		return "b"
	default:
		return "none"
	}
}

// Options adjust one relay. The zero value never times out.
type Options struct {
	// IdleTimeout ends a relay through which no byte has moved in either
	// direction for this long. It is looked at in quarters, so the end comes
	// between one and one and a quarter of it. Zero means never.
	IdleTimeout time.Duration
	// BufferSize is the bytes of buffer for each direction. Zero means
	// DefaultBufferSize; buffers up to that size are pooled.
	BufferSize int
	// AToB and BToA, unless they are nil, grow with every byte that passes, so
	// that who watches many relays need not wait for their ends.
	AToB, BToA *atomic.Int64
}

// A Result says what passed through a relay.
type Result struct {
	AToB, BToA int64 // bytes that were read from one side and written to the other
	First      Side  // the side that ended first, by end of stream or by failing
}

// A Resetter is a connection that can be cut such that the peer notices. Relay
// uses it instead of SetLinger(0) and Close where a connection has it: a
// connection of another kind than TCP implements it to say "this stream is
// incomplete" in its own way.
type Resetter interface {
	// Reset closes the connection at once and drops what is not sent. The
	// peer's pending and future reads fail; they never report end of stream.
	Reset() error
}

// A WriteLimiter is a connection that takes writes of a limited size only. Relay
// keeps to it also where it writes to the socket past the Write method.
type WriteLimiter interface {
	// WriteMax is the most bytes that one write may have; 0 is no limit.
	WriteMax() int
}

// chunkSize is how many bytes are read, and so written, at once.
func chunkSize(o Options, between ...net.Conn) int {
	size := o.BufferSize
	if size <= 0 {
		size = DefaultBufferSize
	}
	for _, c := range between {
		if l, ok := c.(WriteLimiter); ok && l.WriteMax() > 0 {
			size = min(size, l.WriteMax())
		}
	}
	return size
}

// Relay copies both ways between a and b until both directions have ended,
// closes both, and returns what passed. It owns both connections from the call
// on; no deadline may be set on them. A connection with a SyscallConn is read by
// it, past its Read method, so that a quiet one holds no buffer; if it has an
// AtEOF() error as well, that says what the end of its stream means. From it to a
// Filler, and from a Drainer to a TCP or unix connection, bulk needs no buffer between.
//
// Each direction ends in one of three ways, and each is told honestly:
//
//	source says end of stream   destination.CloseWrite; the other direction goes on
//	source fails (a reset)      both connections end now
//	destination refuses         this direction ends; the other one goes on, because
//	                            an answer may have been sent ahead of the refusal
//
// A connection that did not get everything up to the end of stream is not
// closed but reset, so that its peer cannot take a truncated stream for a whole
// one: by Reset (see Resetter), by SetLinger(0) and Close, or, below TLS, by
// doing this to the NetConn. A connection with none of these is closed, and
// its peer cannot tell; a kernel VSOCK socket is of this kind. A connection
// without CloseWrite cannot be told of a half-close: it is closed when the other
// direction has ended, or when the relay is idle.
//
// The error is nil if both directions ended by end of stream. Otherwise it is
// the first failure, the context's cause, or ErrIdle. All can be tested with
// errors.Is, and after any of them both connections are closed and no goroutine
// is left.
func Relay(ctx context.Context, a, b net.Conn, o Options) (Result, error) {
	r := newRelaying(a, b)
	r.aToB.total, r.bToA.total = o.AToB, o.BToA
	size := chunkSize(o, a, b)

	// Neither costs a goroutine: there may be many relays, most of them quiet.
	unwatch := context.AfterFunc(ctx, func() { r.giveUp(stopped(ctx)) })
	idle := watchIdle(r, o.IdleTimeout)
	var other sync.WaitGroup
	other.Go(func() { r.copyDirection(&r.bToA, size) })
	r.copyDirection(&r.aToB, size)
	other.Wait()
	unwatch()
	idle.stop()
	r.closeBoth() // waits if either of the two above is about to close

	r.mu.Lock()
	defer r.mu.Unlock()
	return Result{AToB: r.aToB.moved.Load(), BToA: r.bToA.moved.Load(), First: r.first}, r.err
}

// A direction is the stream from one connection to the other.
type direction struct {
	src, dst net.Conn
	from, to Side
	moved    atomic.Int64  // bytes written to dst
	total    *atomic.Int64 // of the caller's, or nil
	complete atomic.Bool   // dst was told the true end of the stream
}

// A relaying is one relay under way.
type relaying struct {
	aToB, bToA direction
	closing    [2]sync.Once // of a and of b

	mu sync.Mutex
	outcome
}

// An outcome is how a relay came to its end. It belongs to the relay's lock.
type outcome struct {
	first Side
	ended bool // first and err have their meaning, even if they are zero
	err   error
}

// end records which side ended first, and the first error.
func (o *outcome) end(side Side, err error) {
	if !o.ended {
		o.first, o.ended = side, true
	}
	if o.err == nil {
		o.err = err
	}
}

func stopped(ctx context.Context) error {
	return fmt.Errorf("relay: asked to stop: %w", context.Cause(ctx))
}

func newRelaying(a, b net.Conn) *relaying {
	r := &relaying{}
	r.aToB.src, r.aToB.dst, r.aToB.from, r.aToB.to = a, b, SideA, SideB
	r.bToA.src, r.bToA.dst, r.bToA.from, r.bToA.to = b, a, SideB, SideA
	return r
}

// copyDirection copies until the direction ends, and records how it did.
//
// It does not use io.Copy and with it splice: bytes that the kernel moves by
// itself are not seen by the idle timeout until they have all gone.
func (r *relaying) copyDirection(d *direction, size int) {
	src, dst := newSource(d.src, size), newSink(d.dst)
	defer src.done()
	filled, drained := newFilling(src, d.dst), newDraining(src, d.dst, dst)
	for r.fill(d, filled) && r.drain(d, drained) {
		chunk, readErr := src.next()
		if len(chunk) > 0 {
			written, err := dst.Write(chunk)
			d.count(written)
			if err != nil {
				r.refused(d, err)
				return
			}
		}
		if readErr != nil {
			r.exhausted(d, readErr)
			return
		}
	}
}

// exhausted ends the direction whose source gives no more: at the end of its stream, or
// because it fails, and then the other one too.
func (r *relaying) exhausted(d *direction, err error) {
	if err == io.EOF {
		r.endOfStream(d)
		return
	}
	r.end(d.from, fmt.Errorf("relay: read from %s: %w", d.from, err))
	r.closeBoth()
}

// refused ends the direction whose destination takes no more.
func (r *relaying) refused(d *direction, err error) {
	r.end(d.to, fmt.Errorf("relay: write to %s: %w", d.to, err))
}

func (d *direction) count(n int) {
	d.moved.Add(int64(n))
	if d.total != nil {
		d.total.Add(int64(n))
	}
}

// endOfStream passes the end of the source's stream on to the destination.
func (r *relaying) endOfStream(d *direction) {
	r.end(d.from, nil)
	half, ok := d.dst.(interface{ CloseWrite() error })
	if !ok {
		d.complete.Store(true) // its Close, later, is the end of stream
		return
	}
	if err := half.CloseWrite(); err != nil {
		r.end(d.to, fmt.Errorf("relay: end stream to %s: %w", d.to, err))
		return
	}
	d.complete.Store(true)
}

// end records how the relay ended.
func (r *relaying) end(side Side, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.outcome.end(side, err)
}

func (r *relaying) passed() int64 { return r.aToB.moved.Load() + r.bToA.moved.Load() }

// giveUp ends the relay from outside.
func (r *relaying) giveUp(err error) {
	r.end(NoSide, err)
	r.closeBoth()
}

// closeBoth closes both connections, each as it deserves. A direction that is
// still copying fails and ends.
func (r *relaying) closeBoth() {
	r.closing[0].Do(func() { closeEnd(&r.bToA) })
	r.closing[1].Do(func() { closeEnd(&r.aToB) })
}

// closeEnd closes the connection that into leads to. Its error has nobody to go
// to: the bytes that mattered were written, or the failure is recorded.
func closeEnd(into *direction) {
	if into.complete.Load() {
		_ = into.dst.Close()
		return
	}
	_ = reset(into.dst)
}

// reset cuts a connection with the strongest means that it has.
func reset(c net.Conn) error {
	switch x := c.(type) {
	case Resetter:
		return x.Reset()
	case interface{ SetLinger(int) error }:
		_ = x.SetLinger(0) // fails only on a closed socket, and then Close says so
	case interface{ NetConn() net.Conn }:
		// TLS: Close would send close_notify, which claims a whole stream.
		_ = reset(x.NetConn())
	}
	return c.Close()
}
