package h2

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// batchRoom is what a Batched holds at most: a batch of whole TLS records.
const batchRoom = batchSize + batchSize/16

// leastTaken is how much of a batch a client has to take within one write deadline.
const leastTaken = 4 << 10

// A Batched is a connection that can hold what is written to it, to send it by one
// system call. Below TLS that is what many records take otherwise.
type Batched struct {
	net.Conn

	mu      sync.Mutex // TLS writes alerts from whatever goroutine
	sending atomic.Bool
	holding bool
	held    *[batchRoom]byte // nil: nothing
	n       int
}

// Batch returns c, able to hold writes. It holds none until a server of this package
// finds it, itself or below TLS.
func Batch(c net.Conn) *Batched { return &Batched{Conn: c} }

// rooms are those of connections that are not sending at the moment.
type rooms struct{ pool sync.Pool }

func (r *rooms) get() *[batchRoom]byte {
	if b, ok := r.pool.Get().(*[batchRoom]byte); ok {
		return b
	}
	return new([batchRoom]byte)
}

// hold begins to hold what is written, in room.
func (b *Batched) hold(room *[batchRoom]byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.holding, b.held, b.n = true, room, 0
}

// release sends what is held, and holds nothing any more.
func (b *Batched) release() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	err := b.send()
	b.holding, b.held = false, nil
	return err
}

func (b *Batched) send() error {
	if b.n == 0 {
		return nil
	}
	b.sending.Store(true)
	defer b.sending.Store(false)
	rest := b.held[:b.n]
	b.n = 0
	for {
		n, err := b.Conn.Write(rest)
		// Whoever guards writes by deadlines means clients that take nothing. A batch
		// is more than a slow one takes until then; a byte at a time is nothing, too.
		if n < leastTaken || !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		rest = rest[n:]
	}
}

// Write implements net.Conn. The error of what is held is told later, by a Write or
// when the batch ends.
func (b *Batched) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.holding {
		return b.Conn.Write(p)
	}
	if len(p) > len(b.held)-b.n {
		if err := b.send(); err != nil {
			return 0, err
		}
		if len(p) > len(b.held) {
			return b.Conn.Write(p)
		}
	}
	b.n += copy(b.held[b.n:], p)
	return len(p), nil
}

// SetWriteDeadline implements net.Conn. While a batch is being sent it is TLS that
// closes the connection, and would wait for the batch: the connection is closed then,
// as TLS does itself if it knows of a Write.
func (b *Batched) SetWriteDeadline(t time.Time) error {
	if b.sending.Load() {
		return b.Conn.Close()
	}
	return b.Conn.SetWriteDeadline(t)
}

// CloseWrite ends this direction alone.
func (b *Batched) CloseWrite() error {
	if c, ok := b.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return errors.ErrUnsupported
}

// SyscallConn is for those that wait for something to read without a buffer.
func (b *Batched) SyscallConn() (syscall.RawConn, error) {
	if c, ok := b.Conn.(syscall.Conn); ok {
		return c.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}
