// Package inbound takes the streams that the host opens into the enclave: it
// reads who the client is, and hands the connection to the front, or relays it to
// an app that does not speak HTTP. It believes the host nothing but the client's
// address, which only the host can know; front ends TLS.
package inbound

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/corridor-enclave/corridor/tapstack/sometimes"
	"github.com/corridor-enclave/corridor/tapstack/stream"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

const (
	// waitTimeout is how long a stream may wait for its client: the host connects
	// some ahead of time, and closes them itself after a quarter of this.
	waitTimeout = time.Minute
	// headerTimeout bounds the header from its first byte on.
	headerTimeout = 5 * time.Second
	// maxWaiting bounds the streams of one port that have no client yet.
	maxWaiting = 1024
	// DefaultMaxConns bounds the connections of one port.
	DefaultMaxConns = 16384
)

// Config says whose streams are taken, and how many.
type Config struct {
	// Listener is of a vsockconn.Transport, and is owned from the call on.
	Listener net.Listener
	// Parent is the only peer whose streams are taken.
	Parent vsockconn.CID
	// MaxConns bounds the connections; one more is closed at once. 0 is
	// DefaultMaxConns.
	MaxConns int
	// Log gets what an operator should know.
	Log *slog.Logger
}

// A Conn is a stream whose client is known: its RemoteAddr is the client's, as the
// host says. If the host does not say, it is the host's VSOCK address.
type Conn struct {
	*stream.Conn
	client net.Addr
	leave  func()
}

// RemoteAddr is the client's address, a *net.TCPAddr if the host told it.
func (c *Conn) RemoteAddr() net.Addr { return c.client }

// Close closes the stream; before both directions have ended that is a reset.
func (c *Conn) Close() error {
	c.leave()
	return c.Conn.Close()
}

// Reset closes the stream such that the host resets its client.
func (c *Conn) Reset() error {
	c.leave()
	return c.Conn.Reset()
}

// An acceptor reads the headers of streams, each in a goroutine of its own, so
// that a slow one holds up nobody:
//
//	            not the parent's, one too many        no header, a wrong one, a slow one
//	accepted ──────────────────────────────► closed ◄───────────────────────────────┐
//	   │                                       ▲ Close                              │
//	   └──────────────► waiting ───────────────┴────────────────► header ───────────┤
//	                       first byte, within waitTimeout           │ headerTimeout │
//	                                                              Accept ───────────┘
type acceptor struct {
	cfg   Config
	conns chan *Conn
	errs  chan error // of accepting, for whoever calls accept
	stop  chan struct{}
	once  sync.Once
	loose sometimes.Logger // says which streams are closed, now and then

	running sync.WaitGroup // the accept loop and the streams that wait

	mu      sync.Mutex
	waiting map[*stream.Conn]bool
	open    int    // connections that were handed on
	refused uint64 // streams that were closed before
}

// newAcceptor starts to accept. close ends it.
func newAcceptor(cfg Config) *acceptor {
	if cfg.MaxConns == 0 {
		cfg.MaxConns = DefaultMaxConns
	}
	a := &acceptor{
		cfg: cfg, conns: make(chan *Conn), errs: make(chan error), stop: make(chan struct{}),
		loose: sometimes.Logger{Log: cfg.Log.With("part", "streams")}, waiting: map[*stream.Conn]bool{},
	}
	a.running.Go(a.loop)
	return a
}

// accept returns the next connection whose client is known. The error is
// net.ErrClosed after close, else one of the listener below.
func (a *acceptor) accept() (*Conn, error) {
	select {
	case c := <-a.conns:
		return c, nil
	case err := <-a.errs:
		return nil, err
	case <-a.stop:
		return nil, net.ErrClosed
	}
}

// close stops accepting and closes what waits for its client. Connections live on.
func (a *acceptor) close() error {
	var err error
	a.once.Do(func() {
		close(a.stop)
		err = a.cfg.Listener.Close()
		a.mu.Lock()
		for c := range a.waiting {
			c.Close()
		}
		a.mu.Unlock()
	})
	a.running.Wait()
	return err
}

func (a *acceptor) stopped() bool {
	select {
	case <-a.stop:
		return true
	default:
		return false
	}
}

func (a *acceptor) loop() {
	for {
		c, err := a.cfg.Listener.Accept()
		if err != nil {
			select {
			case a.errs <- err: // whoever accepts knows how long to pause
				continue
			case <-a.stop:
				return
			}
		}
		s := stream.New(c)
		if err := a.admit(s); err != nil {
			a.refuse()
			a.loose.Warn("stream refused", "peer", c.RemoteAddr().String(), "error", err)
			s.Close() // behind the line: who sees the end may look for the reason
			continue
		}
		a.running.Go(func() { a.begin(s) })
	}
}

// admit lets the stream wait for its header, or says why not.
func (a *acceptor) admit(s *stream.Conn) error {
	cid, ok := vsockconn.PeerCID(s)
	if !ok || cid != a.cfg.Parent {
		return fmt.Errorf("not from the parent, CID %s", a.cfg.Parent)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case len(a.waiting) >= maxWaiting:
		return errors.New("too many streams wait for a client")
	case a.open >= a.cfg.MaxConns:
		return errors.New("too many connections")
	}
	a.waiting[s] = true
	return nil
}

// begin reads the header and hands the connection on.
func (a *acceptor) begin(s *stream.Conn) {
	o, err := a.readOpening(s)
	a.mu.Lock()
	delete(a.waiting, s)
	if err == nil {
		a.open++
	}
	a.mu.Unlock()
	if err != nil {
		s.Close()
		return
	}
	c := &Conn{Conn: s, client: s.RemoteAddr(), leave: sync.OnceFunc(a.left)}
	if o.Client.IsValid() {
		c.client = net.TCPAddrFromAddrPort(o.Client)
	}
	a.cfg.Log.Debug("stream", "client", c.client.String(), "id", o.ID, "service", o.Service)
	select {
	case a.conns <- c:
	case <-a.stop:
		c.Reset()
	}
}

// Counts is what one port has and had.
type Counts struct {
	Open    int    // connections of clients now
	Waiting int    // streams that have no client yet
	Refused uint64 // streams that were one too many, not the parent's, or began wrong
}

func (a *acceptor) counts() Counts {
	a.mu.Lock()
	defer a.mu.Unlock()
	return Counts{Open: a.open, Waiting: len(a.waiting), Refused: a.refused}
}

func (a *acceptor) refuse() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refused++
}

func (a *acceptor) left() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.open--
}

// readOpening logs what goes wrong, if that is worth it: a stream that never got a
// client is nobody's fault.
func (a *acceptor) readOpening(s *stream.Conn) (stream.Opening, error) {
	if err := s.SetReadDeadline(time.Now().Add(waitTimeout)); err != nil {
		return stream.Opening{}, err
	}
	r := &firstByte{conn: s}
	o, err := stream.ReadOpening(r)
	if err == nil {
		err = s.SetReadDeadline(time.Time{})
	}
	if err != nil && r.came && !a.stopped() {
		a.refuse()
		a.loose.Warn("stream closed", "error", err)
	}
	return o, err
}

// A firstByte gives the header its own deadline once it has begun.
type firstByte struct {
	conn *stream.Conn
	came bool
}

func (f *firstByte) Read(b []byte) (int, error) {
	n, err := f.conn.Read(b)
	if n > 0 && !f.came {
		f.came = true
		if err := f.conn.SetReadDeadline(time.Now().Add(headerTimeout)); err != nil {
			return n, err
		}
	}
	return n, err
}
