package relay

import (
	"errors"
	"io"
	"net"
	"syscall"

	"github.com/corridor-enclave/corridor/tapstack/nonblock"
)

// A Drainer is a connection that passes on what has come from where it keeps it, so that
// Relay copies bulk from it to a socket once less.
type Drainer interface {
	// Drain writes what has come to to, in pieces, until there is no more or to has an
	// error, and returns how much to took. It does not wait, and neither must to: 0 is
	// that nothing has come, or that to took nothing. Its error is that of the
	// connection, as Read's.
	Drain(to io.Writer) (int, error)
}

// errEnough has a Drainer keep the rest for the next time.
var errEnough = errors.New("relay: that is enough for a time")

// sendAt is how large a piece must be to be sent by itself; smaller ones are gathered.
const sendAt = 16 << 10

// A draining passes bulk from a Drainer to a socket. It is the Writer of the Drain: what
// the socket does not take at once goes to a buffer, as do small pieces.
//
//	       the last read gave bulkAt            something came
//	buffer ────────────────────────► draining ◄───────────────► sending what is left
//	       ◄────────────────────────
//	              nothing came
type draining struct {
	source *source
	from   Drainer
	rest   *nonblock.Writer // of the same socket
	raw    syscall.RawConn
	pass   func(fd uintptr) bool // made once

	fd   int
	sent int // past the buffer
	left int // bytes of the source's buffer, to be sent
	n    int // what Drain returned

	readErr, writeErr error // of the Drainer, and of the socket
}

// newDraining is nil where bytes go by a buffer.
func newDraining(from *source, to net.Conn, sink io.Writer) *draining {
	drainer, ok := from.conn.(Drainer)
	rest, isSocket := sink.(*nonblock.Writer)
	if !ok || !isSocket {
		return nil
	}
	raw, err := to.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil
	}
	d := &draining{source: from, from: drainer, rest: rest, raw: raw}
	d.pass = d.passSome
	return d
}

// wanted reports whether there seems to be bulk.
func (d *draining) wanted() bool { return d != nil && d.source.bulk() }

// next passes on what has come. It returns how many bytes that were, and which side
// failed, if one did.
func (d *draining) next() (n int, readErr, writeErr error) {
	d.source.hold()
	d.sent, d.left, d.n, d.readErr, d.writeErr = 0, 0, 0, nil, nil
	if err := d.raw.Write(d.pass); err != nil {
		return 0, nil, err
	}
	n = d.sent
	if d.left > 0 && d.writeErr == nil {
		var some int
		some, d.writeErr = d.rest.Write(d.source.buf[:d.left])
		n += some
	}
	if d.n == 0 {
		d.source.n = 0 // whoever reads next waits
	}
	return n, d.readErr, d.writeErr
}

// passSome does not have the runtime wait.
func (d *draining) passSome(fd uintptr) bool {
	d.fd = int(fd)
	d.n, d.readErr = d.from.Drain(d)
	return true
}

// Write sends a large piece, as far as the socket takes it, and keeps what is left.
func (d *draining) Write(p []byte) (n int, err error) {
	if len(d.source.buf)-d.left < len(p) {
		return 0, errEnough
	}
	if d.left == 0 && len(p) >= sendAt {
		n, err = nonblock.Send(d.fd, p)
		if err != nil && err != syscall.EAGAIN {
			d.writeErr = err
			return 0, err
		}
		d.sent += n
	}
	d.left += copy(d.source.buf[d.left:], p[n:])
	if d.sent+d.left >= len(d.source.buf) {
		return len(p), errEnough
	}
	return len(p), nil
}

// drain passes bulk as long as there is some. It returns false if the direction has
// ended.
func (r *relaying) drain(d *direction, bulk *draining) bool {
	for bulk.wanted() {
		n, readErr, writeErr := bulk.next()
		d.count(n)
		switch {
		case writeErr != nil:
			r.refused(d, writeErr)
			return false
		case readErr != nil:
			r.exhausted(d, readErr)
			return false
		}
	}
	return true
}
