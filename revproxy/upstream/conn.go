package upstream

import (
	"bufio"
	"net"
	"sync"
	"syscall"
	"time"
)

// bufferSize is of each direction's buffer, which a connection keeps while it is
// idle. Bodies are read and written past them.
const bufferSize = 4 << 10

// A conn is a connection to the app. One exchange owns it at a time.
type conn struct {
	net.Conn
	br  *bufio.Reader
	bw  *bufio.Writer
	raw syscall.RawConn // nil if the kernel does not know the connection, or the runtime does not

	budget int           // how much more may be read; below zero means any amount
	quiet  time.Duration // bounds one Read of a body, zero: no limit
	inBody bool
	armed  time.Time // when quiet was last counted from

	until  time.Time // the read deadline, as far as a Line has set it
	limit  time.Time // until when the app must have taken a request; zero: for ever
	early  []byte    // to be read before what comes
	line   *Line     // nil until it is first lent
	asking asking

	since time.Time // when it became idle
	kept  bool      // it has carried an exchange before
}

func newConn(nc net.Conn, quiet time.Duration) *conn {
	c := &conn{Conn: nc, quiet: quiet, budget: -1}
	c.br = bufio.NewReaderSize(c, bufferSize)
	c.bw = bufio.NewWriterSize(nc, bufferSize)
	if sc, ok := nc.(syscall.Conn); ok {
		c.raw, _ = sc.SyscallConn()
	}
	return c
}

// Read reads from the app, within the budget and the deadlines of the moment.
func (c *conn) Read(p []byte) (int, error) {
	if c.budget == 0 {
		return 0, ErrHead
	}
	if c.budget > 0 && len(p) > c.budget {
		p = p[:c.budget]
	}
	if c.inBody && c.quiet > 0 {
		c.arm()
	}
	n, err := c.read(p)
	if c.budget > 0 {
		c.budget -= n
	}
	return n, err
}

// read reads what has come early, then what comes.
func (c *conn) read(p []byte) (int, error) {
	if len(c.early) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.early)
	c.early = c.early[n:]
	return n, nil
}

// arm moves the deadline within a body, but only if that is worth a timer.
func (c *conn) arm() {
	if now := time.Now(); now.Sub(c.armed) > c.quiet/8 {
		c.armed = now
		_ = c.SetReadDeadline(now.Add(c.quiet))
	}
}

// expect prepares for the head of an answer.
func (c *conn) expect(maxHeader int) { c.budget, c.inBody = maxHeader, false }

// body prepares for the body of an answer: the head's deadline no longer counts.
func (c *conn) body() {
	c.budget, c.inBody, c.armed = -1, true, time.Time{}
	if c.quiet == 0 {
		_ = c.SetReadDeadline(time.Time{})
	}
}

// A pool holds idle connections. The one that was used last is used first, so
// that those a burst has left behind grow old and go.
type pool struct {
	max int
	age time.Duration

	mu    sync.Mutex
	idle  []*conn     // the oldest first
	timer *time.Timer // closes the oldest when its time has come; nil: not running
}

// take returns a connection on which the app has neither spoken nor hung up, or
// nil if there is none.
func (p *pool) take() *conn {
	for {
		c := p.pop()
		if c != nil {
			c.until = time.Time{} // others set the deadline
		}
		if c == nil || (c.quietAndOpen() && (p.age == 0 || time.Since(c.since) < p.age)) {
			return c
		}
		_ = c.Close()
	}
}

func (p *pool) pop() *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.idle)
	if n == 0 {
		return nil
	}
	c := p.idle[n-1]
	p.idle[n-1] = nil
	p.idle = p.idle[:n-1]
	return c
}

// put keeps a connection, or closes it if there are enough, or if something came
// behind the answer.
func (p *pool) put(c *conn, now time.Time) {
	if len(c.early) > 0 {
		_ = c.Close()
		return
	}
	c.kept, c.since = true, now
	if !p.push(c) {
		_ = c.Close()
	}
}

func (p *pool) push(c *conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) >= p.max {
		return false
	}
	p.idle = append(p.idle, c)
	if p.age > 0 && p.timer == nil {
		p.timer = time.AfterFunc(p.age, p.reap)
	}
	return true
}

// reap closes what has been idle for too long.
func (p *pool) reap() {
	for _, c := range p.old(time.Now().Add(-p.age)) {
		_ = c.Close()
	}
}

// old removes the connections that have been idle since before a time.
func (p *pool) old(than time.Time) []*conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for n < len(p.idle) && !p.idle[n].since.After(than) {
		n++
	}
	old := append([]*conn(nil), p.idle[:n]...)
	p.idle = append(p.idle[:0], p.idle[n:]...)
	p.timer = nil
	if len(p.idle) > 0 {
		p.timer = time.AfterFunc(p.idle[0].since.Sub(than), p.reap)
	}
	return old
}

func (p *pool) size() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.idle)
}

func (p *pool) closeAll() {
	p.mu.Lock()
	idle := p.idle
	p.idle = nil
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	p.mu.Unlock()
	for _, c := range idle {
		_ = c.Close()
	}
}
