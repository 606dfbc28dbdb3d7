package revproxy

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/corridor-enclave/corridor/revproxy/eventloop"
	"github.com/corridor-enclave/corridor/revproxy/h2"
	"github.com/corridor-enclave/corridor/revproxy/head"
)

// The states of a connection in the lane:
//
//	     accepted            a byte             answered
//	───────────────► new ─────────────► active ──────────► idle
//	                  │                   │ ▲                │ │
//	       late drain │      handed, last │ └──── a byte ────┘ │ drain
//	                  └───────► ended ◄───┴────────────────────┘
const (
	stateNew int32 = iota
	stateIdle
	stateActive
	stateEnded
)

// inSize is how long a simple request may be, with its body.
const inSize = 16 << 10

// laneBuffers are what a request needs while it is under way. A connection has
// none while it is idle.
type laneBuffers struct {
	in     [inSize]byte
	answer [16 << 10]byte
	out    []byte
	body   []byte // of a request in chunks, as it is passed on
	req    head.Request
	res    head.Response
	chunks head.Chunks
}

// A largeBuffer is for bodies that do not fit into laneBuffers.
type largeBuffer [64 << 10]byte

// A laneConn is a connection in the lane. All of it belongs to the goroutine of
// serve, but for state, and what watch lends to another.
type laneConn struct {
	lane     *Lane
	accepted net.Conn
	conn     net.Conn // the same, or TLS on it
	tls      *tls.Conn
	under    *h2.Batched     // below tls: it stays while the connection goes to a loop, and back
	raw      syscall.RawConn // nil: conn has to be read to know that there is something
	state    atomic.Int32
	task     *eventloop.Task // nil: a goroutine of its own
	socket   *eventloop.Conn // accepted, or within it, while there is a task

	b         *laneBuffers // nil while idle
	n         int          // how much of b.in is filled
	one       [1]byte      // what an idle connection is read into
	rawErr    error        // of reading by raw
	step      func(fd uintptr) bool
	idleUntil time.Time // the read deadline; zero: some other

	client         netip.Addr // as the admission knows it
	constant       []byte     // the fields that are the same for each request
	before, behind string     // of Forwarded, around the host
	host           string     // the last that was found to be served

	exchange laneExchange
	watching *watch // nil: nobody reads the client meanwhile
	minding  watch  // what watching is on a loop, where nobody has to read
}

func newLaneConn(l *Lane, accepted net.Conn) *laneConn {
	c := &laneConn{lane: l, accepted: accepted, conn: accepted}
	if l.cfg.TLS != nil {
		c.under = h2.Batch(accepted)
		c.tls = tls.Server(c.under, l.cfg.TLS)
		c.conn = c.tls
	} else if sc, ok := accepted.(syscall.Conn); ok {
		c.raw, _ = sc.SyscallConn() // without, reading needs a buffer
	}
	remote := ""
	if a := accepted.RemoteAddr(); a != nil {
		remote = a.String()
	}
	c.client = whoIs(remote)
	from := originOf(remote, accepted.LocalAddr(), c.tls != nil)
	c.constant = append(c.constant, "Via: 1.1 "+l.proxy.mark+"\r\n"...)
	from.constants(l.proxy.fields, func(field, value string) { c.constant = append(c.constant, field+": "+value+"\r\n"...) })
	c.before, c.behind = from.forwarded()
	c.exchange.init(c)
	return c
}

// begin serves a connection in a goroutine of its own, or finds a loop for it.
func (c *laneConn) begin() {
	if c.lane.cfg.Off || c.tls != nil && !c.shakeHands() {
		c.handOff()
		c.lane.forget(c)
		return
	}
	if c.tls != nil && c.enter() {
		return
	}
	c.serve()
}

// serve serves the connection to its end, or until it is handed on.
func (c *laneConn) serve() {
	defer c.lane.forget(c)
	defer func() {
		if v := recover(); v != nil {
			c.lane.proxy.config.Log.Error("a connection failed", "part", "lane", "panic", v, "stack", string(debug.Stack()))
			_ = c.accepted.Close()
		}
	}()
	for c.await() {
		if !c.request() {
			break
		}
		if c.n == 0 {
			c.release()
		}
	}
	if c.b != nil {
		c.release()
	}
}

// shakeHands reports whether HTTP/1.1 is spoken. It leaves the rest to the server,
// which asks again, gets the same error, and knows what to do.
func (c *laneConn) shakeHands() bool {
	_ = c.accepted.SetDeadline(time.Now().Add(c.lane.headerTimeout()))
	err := c.tls.HandshakeContext(c.lane.ctx)
	if err != nil {
		return false
	}
	_ = c.accepted.SetDeadline(time.Time{})
	p := c.tls.ConnectionState().NegotiatedProtocol
	return p == "" || p == "http/1.1"
}

// handOff gives the server a connection of which nothing was read, as it would
// have got it without the lane.
func (c *laneConn) handOff() {
	if !c.give(c.conn) {
		_ = c.accepted.Close()
	}
}

// give gives the server a connection, which is no longer the lane's then.
func (c *laneConn) give(conn net.Conn) bool {
	if c.state.Swap(stateEnded) == stateEnded {
		return false
	}
	select {
	case c.lane.handed <- conn:
		return true
	case <-c.lane.ctx.Done():
		return false
	}
}

// handOn gives the server the connection with what was read of it, and with the
// answer to the first request if that has begun. It returns false.
func (c *laneConn) handOn(begun *begunAnswer) bool {
	onLoop := c.task != nil
	if c.leave() != nil {
		begun.drop()
		return c.end()
	}
	_ = c.conn.SetReadDeadline(time.Time{})
	early := c.b.in[:c.n]
	if !c.exchange.begin.IsZero() { // old clients end a body by an empty line (RFC 9112 section 2.2)
		early = bytes.TrimPrefix(early, []byte("\r\n"))
	}
	h := handedConn{Conn: c.conn, early: bytes.Clone(early), begun: begun}
	conn := net.Conn(&h)
	if c.tls != nil {
		conn = &handedTLS{h, c.tls}
	}
	give := func() {
		if !c.give(conn) {
			_ = conn.Close()
		}
	}
	if onLoop {
		c.lane.running.Go(give) // it may wait
	} else {
		give()
	}
	return false
}

// await waits for the first bytes of a request. It reports whether there are some.
func (c *laneConn) await() bool {
	if c.n > 0 {
		return true
	}
	c.state.CompareAndSwap(stateActive, stateIdle)
	if c.lane.draining.Load() && c.state.Load() == stateIdle {
		return c.end()
	}
	timeout := c.lane.idleTimeout()
	if c.state.Load() == stateNew {
		timeout = c.lane.headerTimeout()
	}
	if now := c.now(); c.idleUntil.Sub(now) < timeout*15/16 {
		c.idleUntil = now.Add(timeout)
		_ = c.conn.SetReadDeadline(c.idleUntil)
	}
	if c.first() != nil {
		return c.end()
	}
	if !c.state.CompareAndSwap(stateIdle, stateActive) && !c.state.CompareAndSwap(stateNew, stateActive) {
		return c.end()
	}
	return true
}

// now is the time, within what one round of the loop takes: enough for whoever waits,
// and too coarse to say how long something took.
func (c *laneConn) now() time.Time {
	if c.task != nil {
		return c.task.Now()
	}
	return time.Now()
}

// first reads the first bytes, and takes buffers only when there are some.
func (c *laneConn) first() (err error) {
	if c.task != nil && c.tls == nil {
		if err = c.socket.Wait(); err == nil {
			c.take()
			err = c.more()
		}
		return err
	}
	if c.raw != nil {
		if err = c.readRaw(); !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
		c.raw = nil
	}
	n, err := c.conn.Read(c.one[:])
	if n == 0 {
		return orEOF(err)
	}
	c.take()
	c.b.in[0] = c.one[0]
	c.n = 1
	c.hurry()    // it holds buffers now, and may have sent no more than this
	_ = c.more() // whoever reads the rest meets the error again
	return nil
}

// hurry gives the client a moment for what is to follow.
func (c *laneConn) hurry() {
	c.idleUntil = time.Time{}
	_ = c.conn.SetReadDeadline(time.Now().Add(restTimeout))
}

// more reads what fits.
func (c *laneConn) more() error {
	n, err := c.conn.Read(c.b.in[c.n:])
	c.n += n
	if n == 0 {
		return orEOF(err)
	}
	return nil
}

func orEOF(err error) error {
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

func (c *laneConn) take() {
	b, ok := c.lane.buffers.Get().(*laneBuffers)
	if !ok {
		b = &laneBuffers{out: make([]byte, 0, 16<<10)}
	}
	c.b = b
}

func (c *laneConn) release() {
	c.lane.buffers.Put(c.b)
	c.b = nil
}

// end closes the connection. It returns false.
func (c *laneConn) end() bool {
	c.state.Store(stateEnded)
	_ = c.conn.Close()
	return false
}

// request serves the request whose beginning has come. It reports whether the
// connection goes on in the lane.
func (c *laneConn) request() bool {
	req := &c.b.req
	for rushed := false; ; rushed = true {
		switch v := req.Parse(c.b.in[:c.n]); {
		case v == head.Other, c.n == inSize && v == head.Incomplete:
			return c.handOn(nil)
		case v == head.Simple:
			switch whole := c.extent(); {
			case whole > inSize:
				return c.handOn(nil)
			case whole <= int64(c.n):
				return c.serveOne(int(whole))
			}
		}
		if !rushed {
			c.hurry()
		}
		if c.more() != nil {
			return c.handOn(nil) // late, or cut: the server says so
		}
	}
}

// extent is how long the request is, whose head has come: more than inSize if it is
// not for the lane, and more than has come if that is not known yet.
func (c *laneConn) extent() int64 {
	req := &c.b.req
	if req.Length >= 0 {
		return int64(req.Size) + req.Length
	}
	c.b.chunks.Reset()
	var n int
	var err error
	c.b.body, n, err = c.b.chunks.Copy(c.b.body[:0], c.b.in[req.Size:c.n])
	switch {
	case err != nil, c.b.chunks.Done() && c.b.chunks.Trailed(), !c.b.chunks.Done() && c.n == inSize:
		return inSize + 1 // the server knows what to do
	case !c.b.chunks.Done():
		return int64(c.n) + 1
	}
	return int64(req.Size + n)
}

// restTimeout is how long the lane waits for the rest of a request. Whose rest
// does not come, or comes in pieces, is no matter of microseconds.
const restTimeout = time.Second

// serveOne serves a request that is there as a whole.
func (c *laneConn) serveOne(size int) bool {
	switch c.exchange.run(size) {
	case passedOn:
		return c.handOn(nil)
	case begunElsewhere:
		return c.handOn(c.exchange.begun)
	case last:
		return c.bye()
	case broken:
		return c.end()
	}
	copy(c.b.in[:], c.b.in[size:c.n])
	c.n -= size
	return true
}

// bye closes the connection such that the client reads the answer before it
// meets a reset: its own last bytes are read for a moment.
func (c *laneConn) bye() bool {
	half, ok := c.conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return c.end()
	}
	_ = c.conn.SetReadDeadline(time.Now().Add(lingerTimeout))
	for range 16 {
		if _, err := c.conn.Read(c.b.in[:]); err != nil {
			break
		}
	}
	return c.end()
}

// lingerTimeout is as long as net/http lingers.
const lingerTimeout = 500 * time.Millisecond
