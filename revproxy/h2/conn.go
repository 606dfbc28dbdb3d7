package h2

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

var (
	errGone    = errors.New("h2: the client is gone")
	errSilent  = errors.New("h2: the client says nothing")
	errPreface = errors.New("h2: no preface")
	errDone    = errors.New("h2: the stream has ended")
)

// A conn is one connection. See the package's drawing for who does what.
type conn struct {
	server  *Server
	nc      net.Conn // TLS, or the connection itself
	batched *Batched // below TLS, or the connection itself; nil: TLS whose writes cannot be held
	given   net.Conn // as net/http knows it
	handler http.Handler
	base    context.Context
	cancel  context.CancelFunc // of base
	tls     *tls.ConnectionState
	remote  string
	reader  *reader
	names   names // the reader's
	started time.Time
	heard   atomic.Int64 // when the last frame came, since started

	running sync.WaitGroup // handlers and the writer

	mu       sync.Mutex
	streams  map[uint32]*stream
	last     uint32 // the client's highest stream
	handlers uint32 // that run
	waiting  []*stream
	unacked  int // SETTINGS of ours
	greeted  bool
	vain     int
	in       inflow
	closed   bool
	going    bool          // GOAWAY was said
	dying    bool          // with an error: nothing that comes counts
	idle     time.Duration // since when there is no stream, since started
	pinged   time.Duration // when PING was sent; 0: none is under way
	timer    *time.Timer
	ends     time.Duration // when it is closed whatever happens; 0: not decided

	sender
}

func newConn(s *Server, nc net.Conn, next http.Handler, base context.Context) *conn {
	c := &conn{
		server: s, nc: nc, given: nc, handler: next, started: time.Now(), unacked: 1,
		streams: make(map[uint32]*stream), in: newInflow(s.conn),
	}
	c.base, c.cancel = context.WithCancel(base)
	if t, ok := nc.(*tls.Conn); ok {
		state := t.ConnectionState()
		c.tls = &state
		c.batched, _ = t.NetConn().(*Batched)
	} else {
		if c.batched, ok = nc.(*Batched); !ok {
			c.batched = Batch(nc)
		}
		c.nc = c.batched
	}
	if a := nc.RemoteAddr(); a != nil {
		c.remote = a.String()
	}
	c.reader = newReader(nc, s.headers)
	c.sender.init(c)
	c.out = appendSettings(c.out,
		setting{settingHeaderTableSize, headerTableSize},
		setting{settingMaxStreams, s.streams},
		setting{settingInitialWindow, uint32(s.stream)}, //nolint:gosec // an int of 31 bits
		setting{settingMaxFrameSize, frameSize},
		setting{settingMaxHeaderListSize, s.headers},
	)
	if more := s.conn - initialWindow; more > 0 {
		c.out = appendWindowUpdate(c.out, 0, uint32(more)) //nolint:gosec // as above
	}
	c.timer = time.AfterFunc(prefaceTimeout, c.tick)
	return c
}

// serve serves the connection until it is closed and its goroutines are gone.
func (c *conn) serve(prefaced, going bool) {
	c.mu.Lock()
	c.push(false)
	c.mu.Unlock()
	if going {
		c.goAway()
	}
	err := c.read(prefaced)
	c.fail(err)
	c.running.Wait()
}

// read reads until the connection fails.
func (c *conn) read(prefaced bool) error {
	if !prefaced {
		var b [len(preface)]byte
		if _, err := io.ReadFull(c.reader.from, b[:]); err != nil {
			return err
		}
		if string(b[:]) != preface {
			c.server.logf("h2: connection error of %s: %v", c.remote, errPreface)
			return c.dismiss(codeProtocol, 0)
		}
	}
	for {
		h, p, err := c.reader.next()
		if err == nil {
			c.heard.Store(int64(time.Since(c.started)))
			err = c.process(h, p)
		}
		if err == nil {
			continue
		}
		var stream streamError
		var whole connError
		switch {
		case errors.As(err, &stream):
			if h.kind == typeHeaders && h.id%2 == 1 {
				c.seen(h.id)
			}
			c.reset(stream.id, stream.code, err)
		case errors.As(err, &whole):
			c.server.logf("h2: connection error of %s: %v", c.remote, err)
			return c.dismiss(code(whole), h.id)
		default:
			return err
		}
	}
}

// dismiss says why the connection is over, which a frame of the stream showed, and
// reads some of what still comes, lest a reset overtake it.
func (c *conn) dismiss(why code, id uint32) error {
	if id%2 == 1 {
		c.seen(id)
	}
	c.mu.Lock()
	c.farewell(why)
	c.mu.Unlock()
	_, err := io.Copy(io.Discard, io.LimitReader(c.reader.from, lingerBytes))
	return err
}

// seen notes a stream that was to be opened.
func (c *conn) seen(id uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = max(c.last, id)
}

// goAway tells the client to open no more streams.
func (c *conn) goAway() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.farewell(codeNo)
}

// farewell tells the client to open no more streams. With an error, it ends those that
// there are. c.mu is held.
func (c *conn) farewell(why code) {
	if c.closed || c.dying || c.going && why == codeNo {
		return
	}
	c.going, c.dying = true, why != codeNo
	c.out = appendGoAway(c.out, c.last, why)
	c.push(false)
	if c.dying {
		c.dropAll(errGone)
	}
	c.leave()
}

// leave ends a connection that was told to go, a moment after its last stream.
// c.mu is held.
func (c *conn) leave() {
	if c.going && len(c.streams) == 0 && c.ends == 0 {
		c.ends = time.Since(c.started) + lingerTimeout
		c.arm()
	}
}

// fail closes the connection at once.
func (c *conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failLocked(err)
}

func (c *conn) failLocked(err error) {
	if c.closed {
		return
	}
	c.closed = true
	if err == nil || errors.Is(err, io.EOF) {
		err = errGone
	}
	if c.timer != nil {
		c.timer.Stop()
	}
	c.dropAll(err)
	c.cancel()
	c.turn.Broadcast()
	c.pressed.Broadcast()
	// Closing may write, which nobody may wait for under the lock.
	c.running.Go(func() { _ = c.nc.Close() }) // it fails if it was closed before
}

// dropAll ends all streams. c.mu is held.
func (c *conn) dropAll(err error) {
	for _, st := range c.streams {
		c.drop(st, err)
	}
	c.waiting = nil
}

// What time may ask for.
type due int

const (
	dueNothing due = iota
	dueEnd
	dueIdle
	duePing
)

// next is what time asks for first, and when.
func (c *conn) next() (what due, at time.Duration) {
	consider := func(d due, when time.Duration) {
		if what == dueNothing || when < at {
			what, at = d, when
		}
	}
	if c.ends != 0 {
		consider(dueEnd, c.ends)
	}
	if !c.greeted {
		consider(dueEnd, prefaceTimeout)
	}
	if idle := c.server.http.IdleTimeout; idle > 0 && len(c.streams) == 0 && !c.going {
		consider(dueIdle, c.idle+idle)
	}
	if c.pinged != 0 {
		consider(dueEnd, c.pinged+c.server.pong)
	} else if c.server.ping > 0 {
		consider(duePing, time.Duration(c.heard.Load())+c.server.ping)
	}
	return what, at
}

// arm sets the timer. c.mu is held.
func (c *conn) arm() {
	if what, at := c.next(); what != dueNothing && !c.closed {
		c.timer.Reset(at - time.Since(c.started))
	}
}

// tick does what time asks for.
func (c *conn) tick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.arm()
	now := time.Since(c.started)
	what, at := c.next()
	if c.closed || at > now {
		return
	}
	switch what {
	case dueEnd:
		c.failLocked(errSilent)
	case dueIdle:
		c.farewell(codeNo)
	case duePing:
		c.pinged = now
		c.out = appendPing(c.out, 0, []byte(pingData))
		c.push(false)
	}
}

// pingData is what our PING carries.
const pingData = "corridor"
