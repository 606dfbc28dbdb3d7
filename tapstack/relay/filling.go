package relay

import (
	"io"
	"net"

	"github.com/corridor-enclave/corridor/tapstack/nonblock"
)

// A Filler is a connection whose own memory can be filled with what is to be sent, so
// that Relay copies bulk from a socket to it once less.
type Filler interface {
	// Fill sends up to n bytes, which read puts where they are sent from, in pieces. It
	// returns how many: 0 without an error is that the connection takes nothing for the
	// moment, and then read was not called. It does not wait. After an error the
	// connection is to be reset.
	Fill(n int, read func(p []byte) (int, error)) (int, error)
	// AwaitRoom returns when Fill may take something, or fail.
	AwaitRoom()
}

// A filling passes bulk from a socket to a Filler:
//
//	       the source read bulkAt at once          as much waits
//	buffer ─────────────────────────────► asking ◄──────────────► filling ──► waiting for room
//	       ◄─────────────────────────────        ◄────────────────────────────────
//	              less waits
type filling struct {
	source *source
	to     Filler
	pass   func(fd uintptr) bool // made once, as read is
	read   func(p []byte) (int, error)

	fd      int
	asked   bool // Fill was called
	n       int
	err     error
	readErr error // of the source, and why Fill failed
}

// newFilling is nil where bytes go by a buffer.
func newFilling(from *source, to net.Conn) *filling {
	filler, ok := to.(Filler)
	if !ok || from.raw == nil {
		return nil
	}
	f := &filling{source: from, to: filler}
	f.pass, f.read = f.passSome, f.readSome
	return f
}

// wanted reports whether there seems to be bulk.
func (f *filling) wanted() bool { return f != nil && f.source.bulk() }

// next passes some bytes, or waits for room, or finds that there is no bulk any more.
func (f *filling) next() (int, error) {
	f.source.done()
	f.asked, f.n, f.err, f.readErr = false, 0, nil, nil
	if err := f.source.raw.Read(f.pass); err != nil || !f.asked {
		f.source.n = 0
		return 0, nil // an error comes again with the source's next read
	}
	if f.n == 0 && f.err == nil {
		f.to.AwaitRoom()
	}
	return f.n, f.err
}

// passSome does not have the runtime wait: the source's own read does, holding no
// buffer either.
func (f *filling) passSome(fd uintptr) bool {
	if n := nonblock.Waiting(int(fd)); n >= bulkAt {
		f.fd, f.asked = int(fd), true
		f.n, f.err = f.to.Fill(min(n, f.source.size), f.read)
	}
	return true
}

func (f *filling) readSome(p []byte) (int, error) {
	n, err := nonblock.Receive(f.fd, p)
	if n == 0 && err == nil {
		err = io.ErrUnexpectedEOF // it had more
	}
	f.readErr = err
	return n, err
}

// fill passes bulk as long as there is some. It returns false if the direction has
// ended.
func (r *relaying) fill(d *direction, f *filling) bool {
	for f.wanted() {
		n, err := f.next()
		d.count(n)
		switch {
		case err == nil:
		case f.readErr != nil:
			r.exhausted(d, err)
			return false
		default:
			r.refused(d, err)
			return false
		}
	}
	return true
}
