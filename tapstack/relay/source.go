package relay

import (
	"io"
	"net"
	"syscall"

	"github.com/corridor-enclave/corridor/tapstack/nonblock"
)

// A source gives the bytes of a connection, a chunk at a time. It holds a buffer
// from when bytes have come until the next chunk is asked for; while it waits for
// them it holds none, if the connection lets its socket be read.
//
//	       next: the socket has nothing        bytes come
//	quiet ◄──────────────────────────── asked ───────────► holding a buffer
//	  │           (buffer given back)    ▲ ▲                    │
//	  └──────────────────────────────────┘ └────────────────────┘
//	                bytes come                      next
type source struct {
	conn   net.Conn
	size   int
	buf    []byte
	pooled *buffer

	raw  syscall.RawConn // nil: conn is read as any other
	read func(fd uintptr) bool
	n    int // what read read
	err  error
}

func newSource(conn net.Conn, size int) *source {
	s := &source{conn: conn, size: size}
	if c, ok := conn.(syscall.Conn); ok && nonblock.Possible {
		if raw, err := c.SyscallConn(); err == nil {
			s.raw, s.read = raw, s.readSocket // made once: it would allocate at each read
		}
	}
	return s
}

// bulkAt is how many bytes at once are bulk, which is worth to be passed on without a
// buffer: to ask a socket how many wait, for one, is a system call.
const bulkAt = 64 << 10

// bulk reports whether the last read gave so much that there may be more.
func (s *source) bulk() bool { return s.n >= bulkAt }

// next returns bytes, or an error, or both. The bytes are good until next or done
// is called.
func (s *source) next() ([]byte, error) {
	if s.raw == nil {
		s.hold()
		var err error
		s.n, err = s.conn.Read(s.buf)
		return s.buf[:s.n], err
	}
	if err := s.raw.Read(s.read); err != nil {
		return nil, err // closed
	}
	switch {
	case s.err != nil:
		return nil, s.err
	case s.n == 0:
		return nil, s.atEOF()
	}
	return s.buf[:s.n], nil
}

// readSocket reads once; false is to be called again when there is something.
func (s *source) readSocket(fd uintptr) bool {
	s.hold()
	s.n, s.err = nonblock.Receive(int(fd), s.buf)
	if s.err == syscall.EAGAIN {
		s.done()
		return false
	}
	return true
}

func (s *source) atEOF() error {
	if c, ok := s.conn.(interface{ AtEOF() error }); ok {
		if err := c.AtEOF(); err != nil {
			return err
		}
	}
	return io.EOF
}

func (s *source) hold() {
	if s.buf == nil {
		s.buf, s.pooled = borrow(s.size)
	}
}

// done gives the buffer back.
func (s *source) done() {
	giveBack(s.pooled)
	s.buf, s.pooled = nil, nil
}

// newSink returns what writes to conn at the least cost: its socket, where that is
// all that its Write leads to.
func newSink(conn net.Conn) io.Writer {
	switch conn.(type) {
	case *net.TCPConn, *net.UnixConn:
		if raw, err := conn.(syscall.Conn).SyscallConn(); err == nil && nonblock.Possible {
			return nonblock.NewWriter(raw)
		}
	}
	return conn
}
