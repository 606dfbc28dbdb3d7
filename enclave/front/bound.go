package front

import (
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/corridor-enclave/corridor/tapstack/sometimes"
)

const (
	// idleEnough is how long a connection must have been silent to make way for another.
	idleEnough = 5 * time.Second
	// moment is how long two things may be apart that are one to the kernel's clock. Which
	// of them was the second is known unless somebody wrote past the connection.
	moment = 10 * time.Millisecond
	// scanEvery is the shortest time between two looks at all connections.
	scanEvery = 100 * time.Millisecond
)

// A bound holds the number of clients' connections down, of all listeners together:
//
//	accepted ── fewer than max ──► served
//	        └── as many ──► the one that has been idle for the longest is closed, and this
//	                        one served; none is idle ──► this one is closed
//
// A connection is idle if nothing has passed for idleEnough, what passed last was ours,
// and no request of net/http's is under way on it. It is the kernel that says so, when
// there is need of it: connections that are not TCP's, such as streams, are never
// closed for others.
type bound struct {
	max int
	log sometimes.Logger

	mu      sync.Mutex
	conns   map[*boundConn]struct{}
	idleFor time.Duration
	idle    []*boundConn // at the last look, those that were idle for longer first
	scanned time.Time

	closed, refused atomic.Uint64
}

func newBound(most int, log *slog.Logger) *bound {
	return &bound{max: most, idleFor: idleEnough, log: sometimes.Logger{Log: log.With("part", "front")}, conns: map[*boundConn]struct{}{}}
}

// SafeConnections is how many clients' connections an enclave with so much memory in bytes
// has room for: 128 KiB for each, which is twice what a busy one takes here and in the
// kernel, and three quarters of the files that the process may open, because requests
// need some to the app as well. At least 64.
func SafeConnections(memory int64) int {
	n := memory / (128 << 10)
	if files, ok := descriptors(); ok {
		n = min(n, int64(min(files-files/4, 1<<30)))
	}
	return int(max(n, 64))
}

// listen puts the bound behind a listener.
func (b *bound) listen(l net.Listener) net.Listener { return &boundListener{l, b} }

type boundListener struct {
	net.Listener
	bound *bound
}

func (l *boundListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err // the server asks whether it is temporary
		}
		if bc := l.bound.admit(c, time.Now()); bc != nil {
			return bc, nil
		}
		l.bound.refused.Add(1)
		_ = c.Close()
		l.bound.log.Warn("a connection was refused: there are as many as may be, and none is idle", "connections", l.bound.max)
	}
}

// admit returns nil if there is no room.
func (b *bound) admit(c net.Conn, now time.Time) *boundConn {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.conns) >= b.max && !b.makeRoom(now) {
		return nil
	}
	bc := &boundConn{Conn: c, bound: b}
	b.conns[bc] = struct{}{}
	return bc
}

// makeRoom has the connection end that has been idle for the longest. What was idle at
// the last look is asked once more.
func (b *bound) makeRoom(now time.Time) bool {
	if len(b.idle) == 0 && now.Sub(b.scanned) >= scanEvery {
		b.scan(now)
	}
	for len(b.idle) > 0 {
		c := b.idle[0]
		b.idle = b.idle[1:]
		if _, here := b.conns[c]; !here {
			continue
		}
		if silent, ok := c.silent(); !ok || silent < b.idleFor {
			continue
		}
		delete(b.conns, c)
		b.closed.Add(1)
		c.hangUp()
		return true
	}
	return false
}

// scan looks for idle connections.
func (b *bound) scan(now time.Time) {
	b.scanned = now
	since := map[*boundConn]time.Duration{}
	for c := range b.conns {
		if silent, ok := c.silent(); ok && silent >= b.idleFor {
			since[c] = silent
			b.idle = append(b.idle, c)
		}
	}
	slices.SortFunc(b.idle, func(x, y *boundConn) int { return int(since[y] - since[x]) })
}

// counts returns how many connections there are, how many ended to make room, and how
// many were refused.
func (b *bound) counts() (open int, closed, refused uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.conns), b.closed.Load(), b.refused.Load()
}

func (b *bound) forget(c *boundConn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.conns, c)
}

// A boundConn is one of the connections that a bound counts.
type boundConn struct {
	net.Conn
	bound *bound
	busy  atomic.Int32 // requests of net/http's under way
	heard atomic.Bool  // what passed last was the client's
}

// Read reads from the client.
func (c *boundConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.heard.Store(true)
	}
	return n, err
}

// Write writes to the client.
func (c *boundConn) Write(p []byte) (int, error) {
	c.heard.Store(false)
	return c.Conn.Write(p)
}

// Close closes the connection, which then no longer counts.
func (c *boundConn) Close() error {
	c.bound.forget(c)
	return c.Conn.Close()
}

// CloseWrite ends this direction alone.
func (c *boundConn) CloseWrite() error { return closeWrite(c.Conn) }

// Inner is the connection that is counted.
func (c *boundConn) Inner() net.Conn { return c.Conn }

// Move counts another connection on the same socket.
func (c *boundConn) Move(to net.Conn) {
	c.bound.mu.Lock()
	defer c.bound.mu.Unlock()
	c.Conn = moved(c.Conn, to)
}

// SyscallConn is for readers that wait without a buffer.
func (c *boundConn) SyscallConn() (syscall.RawConn, error) {
	raw, err := syscallConn(c.Conn)
	if err != nil {
		return nil, err
	}
	return boundRaw{raw, c}, nil
}

type boundRaw struct {
	syscall.RawConn
	conn *boundConn
}

func (r boundRaw) Read(f func(fd uintptr) bool) error {
	err := r.RawConn.Read(f)
	if err == nil {
		r.conn.heard.Store(true)
	}
	return err
}

func (r boundRaw) Write(f func(fd uintptr) bool) error {
	r.conn.heard.Store(false)
	return r.RawConn.Write(f)
}

// LocalAddr is the connection's, and names the connection to whoever handles a request
// that came by it.
func (c *boundConn) LocalAddr() net.Addr { return boundAddr{c.Conn.LocalAddr(), c} }

type boundAddr struct {
	net.Addr
	conn *boundConn
}

// silent is for how long nothing has passed, if the client is not waiting for anything.
func (c *boundConn) silent() (time.Duration, bool) {
	if c.busy.Load() > 0 {
		return 0, false
	}
	received, sent, ok := silence(c.Conn)
	between := received - sent // from the last that was received to the last that was sent
	return min(received, sent), ok && between > -moment && (between > moment || !c.heard.Load())
}

// hangUp ends both directions, so that the connection's owner finds it ended and closes
// it: nobody else may.
func (c *boundConn) hangUp() { shutDown(c.Conn) }

// occupied tells the connection of a request that it is under way, until the result is
// called.
func occupied(r *http.Request) (free func()) {
	a, ok := r.Context().Value(http.LocalAddrContextKey).(boundAddr)
	if !ok {
		return func() {}
	}
	a.conn.busy.Add(1)
	return func() { a.conn.busy.Add(-1) }
}
