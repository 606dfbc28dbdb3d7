package revproxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// LaneConfig describes a fast lane. Only Server has to be set.
type LaneConfig struct {
	// Server serves what the lane does not take. Its ReadHeaderTimeout and
	// IdleTimeout are the lane's as well, and its ErrorLog. Zero is a timeout of
	// 10 s and 2 minutes.
	Server *http.Server
	// TLS is what connections are secured with. Nil: nothing.
	TLS *tls.Config
	// Enter is asked about every request that the lane could take, by its target
	// as it came. If it says true, Leave is called when the request is over; if
	// not, Server gets the request. Nil: all are taken.
	Enter func(target []byte) bool
	// Leave is called once for every true of Enter, with how long the request took
	// in the lane.
	Leave func(took time.Duration)
	// Off passes every connection to Server as it comes.
	Off bool
	// Loops is how many event loops serve connections that are TCP or unix sockets,
	// or Moving around one; 0 stands for as many as goroutines can run at once.
	Loops int
	// Goroutines has a goroutine serve each connection, as it does those that are
	// no sockets.
	Goroutines bool
}

// A Lane serves the requests that are most common, without net/http, and passes
// every other connection on to an http.Server, with what it has read of it:
//
//	               ┌── Simple, and Enter says true ──► app ──► answer ──┐
//	accepted ──► lane ◄─────────────────────────────────────────────────┘
//	               ├── HTTP/2 was agreed upon ──────────────► Server, or package h2 behind it
//	               ├── the head or body is not simple ──────► Server
//	               └── the answer is not simple ────────────► Server, with the answer's beginning
//
// One goroutine, or one task on an event loop, owns a connection. What a simple request is, package head says; its
// body must fit into a buffer, too, and have no trailers. The rules for what is passed on, refused and
// limited are the Proxy's: what it would refuse is not decided here but passed
// on. So is a connection for good: Server does not give it back.
//
// While a client waits for an answer, its connection is watched after a moment,
// as net/http does, and the app's request is aborted if it goes away.
type Lane struct {
	proxy   *Proxy
	cfg     LaneConfig
	ctx     context.Context // ends when the lane is cut
	cut     context.CancelFunc
	handed  chan net.Conn
	buffers sync.Pool // of *laneBuffers
	large   sync.Pool // of *largeBuffer
	date    atomic.Pointer[dateLine]
	taken   atomic.Uint64
	loops   loops

	draining atomic.Bool
	running  sync.WaitGroup // accept loops, connections, and answers that Server has not asked for yet
	mu       sync.Mutex
	conns    map[*laneConn]bool
	sources  map[*laneListener]bool
}

// NewLane makes a lane in front of a server whose handler passes requests on to p,
// and sets the server's ConnContext. It serves nothing before Listen.
func (p *Proxy) NewLane(c LaneConfig) (*Lane, error) {
	if c.Server == nil {
		return nil, errors.New("revproxy: a lane without a server")
	}
	c.Off = c.Off || p.config.Outward // it has rules of its own
	for _, m := range p.apps.members {
		if m.lines == nil {
			c.Off = true // HTTP/2, or another way to the app
		}
	}
	l := &Lane{proxy: p, cfg: c, handed: make(chan net.Conn), conns: make(map[*laneConn]bool), sources: make(map[*laneListener]bool)}
	l.ctx, l.cut = context.WithCancel(context.Background())
	if c.Enter == nil {
		l.cfg.Enter = func([]byte) bool { return true }
	}
	if c.Leave == nil {
		l.cfg.Leave = func(time.Duration) {}
	}
	next := c.Server.ConnContext
	c.Server.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		if next != nil {
			ctx = next(ctx, conn)
		}
		if h, ok := conn.(interface{ begunAnswer() *begunAnswer }); ok {
			ctx = context.WithValue(ctx, begunKey{}, h.begunAnswer())
		}
		return ctx
	}
	return l, nil
}

// Taken returns how many requests the lane has served by itself so far.
func (l *Lane) Taken() uint64 { return l.taken.Load() }

func (l *Lane) headerTimeout() time.Duration {
	if t := l.cfg.Server.ReadHeaderTimeout; t > 0 {
		return t
	}
	return 10 * time.Second
}

func (l *Lane) idleTimeout() time.Duration {
	if t := l.cfg.Server.IdleTimeout; t > 0 {
		return t
	}
	return 2 * time.Minute
}

// newGrace is how long a connection may stay without its first byte once the lane
// drains.
const newGrace = 5 * time.Second

// Shutdown stops accepting, closes connections on which nothing is asked, and waits
// until the others have had their answers. It returns the context's error if that
// ends first; Close cuts what is left. Shut the server down behind it.
func (l *Lane) Shutdown(ctx context.Context) error {
	l.draining.Store(true)
	l.closeListeners()
	l.closeConns(stateIdle)
	late := time.AfterFunc(newGrace, func() { l.closeConns(stateNew) })
	defer late.Stop()
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		l.running.Wait()
	}()
	select {
	case <-drained:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close closes listeners and connections at once, and waits for their goroutines.
// Connections that the server has got are the server's.
func (l *Lane) Close() {
	l.draining.Store(true)
	l.cut()
	l.closeListeners()
	l.closeConns(stateNew, stateIdle, stateActive)
	l.running.Wait()
	l.loops.close()
}

func (l *Lane) closeListeners() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := range l.sources {
		_ = s.source.Close() // its error is nobody's business: it ends
	}
}

// closeConns closes the connections that are in one of some states.
func (l *Lane) closeConns(states ...int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		for _, s := range states {
			if c.state.CompareAndSwap(s, stateEnded) {
				_ = c.accepted.Close()
			}
		}
	}
}

// adopt begins to serve a connection. It reports whether the lane still does.
func (l *Lane) adopt(conn net.Conn) bool {
	c := newLaneConn(l, conn)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.draining.Load() {
		return false
	}
	l.conns[c] = true
	if c.tls != nil || !c.enter() { // a handshake is long
		l.running.Go(c.begin)
	}
	return true
}

func (l *Lane) forget(c *laneConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}

// dateLine is the Date field of one second.
type dateLine struct {
	second int64
	line   []byte
}

// appendDate appends the Date field of now.
func (l *Lane) appendDate(b []byte, now time.Time) []byte {
	d := l.date.Load()
	if d == nil || d.second != now.Unix() {
		d = &dateLine{now.Unix(), now.UTC().AppendFormat([]byte("Date: "), http.TimeFormat+"\r\n")}
		l.date.Store(d)
	}
	return append(b, d.line...)
}

// PathOf is the path of a target in origin form, percent-encoding undone, or false
// if that cannot be.
func PathOf(target []byte) (string, bool) {
	u, err := url.ParseRequestURI(string(target))
	if err != nil {
		return "", false
	}
	return u.Path, true
}
