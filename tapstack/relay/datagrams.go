package relay

import (
	"net"
	"sync"
	"syscall"

	"github.com/corridor-enclave/corridor/tapstack/nonblock"
)

// MaxDatagram is the most bytes that one datagram over IPv4 carries.
const MaxDatagram = 65507

// datagrams caches memory and holds no state, as buffers does.
var datagrams = sync.Pool{New: func() any { return new([MaxDatagram]byte) }}

// Datagrams gives the datagrams of a connection, one at a time. It holds a buffer
// from when one has come until the next is asked for; while it waits it holds none,
// if the connection lets its socket be read or can be waited for. It is not safe for
// concurrent use.
type Datagrams struct {
	conn net.Conn
	buf  *[MaxDatagram]byte // nil while there is nothing in it

	wait func()          // until a datagram has come; nil if conn cannot say so
	raw  syscall.RawConn // nil: conn is read as any other
	read func(fd uintptr) bool
	n    int // what read read
	err  error
}

// NewDatagrams returns the datagrams of conn, which remains the caller's to close.
// A conn that is no socket is waited for by its method AwaitReadable, if it has one.
func NewDatagrams(conn net.Conn) *Datagrams {
	d := &Datagrams{conn: conn}
	if c, ok := conn.(interface{ AwaitReadable() }); ok {
		d.wait = c.AwaitReadable
	} else if c, ok := conn.(syscall.Conn); ok && nonblock.Possible {
		if raw, err := c.SyscallConn(); err == nil {
			d.raw, d.read = raw, d.readSocket // made once: it would allocate at each read
		}
	}
	return d
}

// Next waits for a datagram, which is good until the next call or Done. An error may
// be that of an earlier datagram, as of one that was refused; then there may be
// others.
func (d *Datagrams) Next() ([]byte, error) {
	d.Done()
	if d.raw != nil {
		if err := d.raw.Read(d.read); err != nil {
			return nil, err // closed
		}
	} else {
		if d.wait != nil {
			d.wait()
		}
		d.hold()
		d.n, d.err = d.conn.Read(d.buf[:])
	}
	if d.err != nil {
		return nil, d.err
	}
	return d.buf[:d.n], nil
}

// readSocket reads once; false is to be called again when there is something.
func (d *Datagrams) readSocket(fd uintptr) bool {
	d.hold()
	d.n, d.err = nonblock.Receive(int(fd), d.buf[:])
	if d.err == syscall.EAGAIN {
		d.Done()
		return false
	}
	return true
}

func (d *Datagrams) hold() {
	if d.buf == nil {
		d.buf = datagrams.Get().(*[MaxDatagram]byte)
	}
}

// Done gives the buffer back.
func (d *Datagrams) Done() {
	if d.buf != nil {
		datagrams.Put(d.buf)
		d.buf = nil
	}
}
