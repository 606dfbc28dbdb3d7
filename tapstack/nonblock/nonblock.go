// Package nonblock reads and writes descriptors that never make their caller wait,
// without telling the scheduler of each call. It waits, where there is something to
// wait for, as package net does: in the runtime. It opens and closes nothing.
//
// The scheduler wants to be told of a system call because it may last, and then
// gives the processor to others. One on a socket that does not block lasts as long
// as the copying, or as what the kernel does for the receiver on the same machine;
// when both cores are in use that is often enough to have the processor taken, given
// to another thread and taken back, which costs more than the call.
package nonblock

import (
	"io"
	"syscall"
)

// A Reader reads a socket. One goroutine may use it at a time. Reading allocates
// nothing.
type Reader struct {
	raw  syscall.RawConn
	call func(fd uintptr) bool // made once: it would allocate at each read
	p    []byte
	n    int
	err  error
}

// NewReader returns a reader of a socket that the runtime waits for.
func NewReader(raw syscall.RawConn) *Reader {
	r := &Reader{raw: raw}
	r.call = r.once
	return r
}

// Read reads what has come, or waits for it. An error is io.EOF for the end of the
// stream, a syscall.Errno, or what the RawConn says: that it was closed, or that its
// deadline is over.
func (r *Reader) Read(p []byte) (int, error) {
	r.p = p
	err := r.raw.Read(r.call)
	r.p = nil
	switch {
	case err != nil:
		return 0, err
	case r.err != nil:
		return 0, r.err
	case r.n == 0 && len(p) > 0:
		return 0, io.EOF
	}
	return r.n, nil
}

func (r *Reader) once(fd uintptr) bool {
	r.n, r.err = Receive(int(fd), r.p)
	return r.err != syscall.EAGAIN
}

// A Writer writes to a socket. One goroutine may use it at a time. Writing allocates
// nothing.
type Writer struct {
	raw    syscall.RawConn
	call   func(fd uintptr) bool
	pieces [][]byte
	n      int
	err    error
}

// NewWriter returns a writer to a socket that the runtime waits for.
func NewWriter(raw syscall.RawConn) *Writer {
	w := &Writer{raw: raw, pieces: make([][]byte, 0, MaxPieces)}
	w.call = w.once
	return w
}

// Write writes all of p, however slow the socket takes it. The errors are those of
// Reader.Read, without io.EOF; n is what was written until then.
func (w *Writer) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var some int
		some, err = w.WriteSome(p[n:])
		n += some
	}
	return n, err
}

// WriteSome writes once, of up to MaxPieces pieces in their order, what the socket
// takes of them: at least a byte, unless there is an error.
func (w *Writer) WriteSome(pieces ...[]byte) (int, error) {
	w.pieces = append(w.pieces[:0], pieces...)
	err := w.raw.Write(w.call)
	clear(w.pieces)
	if err != nil {
		return 0, err
	}
	return w.n, w.err
}

func (w *Writer) once(fd uintptr) bool {
	w.n, w.err = writeAny(int(fd), w.pieces)
	return w.err != syscall.EAGAIN
}

func writeAny(fd int, pieces [][]byte) (int, error) {
	if len(pieces) == 1 {
		return Send(fd, pieces[0])
	}
	return Writev(fd, pieces)
}
