package inbound

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// lingerTimeout is how long a connection that was closed here waits for the host
// to end its direction too.
const lingerTimeout = 2 * time.Second

// A Listener is a net.Listener for servers such as net/http's, which know Close
// only and not the order in which a stream ends. Its connections are those of
// clients: RemoteAddr is theirs, as told by the host.
type Listener struct {
	acceptor  *acceptor
	lingering sync.WaitGroup
}

// Listen starts to take streams. Close ends it.
func Listen(cfg Config) *Listener { return &Listener{acceptor: newAcceptor(cfg)} }

// Accept returns the next connection whose client is known.
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.acceptor.accept()
	if err != nil {
		return nil, err
	}
	return &served{Conn: c, listener: l, closed: make(chan struct{}), reading: make(chan struct{}, 1)}, nil
}

// Close stops accepting, and closes streams that have no client yet.
func (l *Listener) Close() error { return l.acceptor.close() }

// Addr is the VSOCK endpoint that is listened on.
func (l *Listener) Addr() net.Addr { return l.acceptor.cfg.Listener.Addr() }

// Wait returns when no connection that was closed lingers any more, which takes
// two seconds at the most. It is called when no more will be closed.
func (l *Listener) Wait() { l.lingering.Wait() }

// A served is a connection whose Close is an end, not a reset: it ends our
// direction, and closes the stream when the host has ended its own.
type served struct {
	*Conn
	listener  *Listener
	closing   atomic.Bool   // Close was called
	closed    chan struct{} // closed with it
	peerEnded atomic.Bool

	// reading holds a token while somebody reads. A Read that waits has to be gone
	// before linger reads, and one that comes later must not wait for linger, which
	// is why this is no mutex.
	reading chan struct{}
}

// Read reads what the client sent. After Close it returns net.ErrClosed, also if
// it is waiting.
func (c *served) Read(b []byte) (int, error) {
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	case c.reading <- struct{}{}:
	}
	defer func() { <-c.reading }()
	n, err := c.Conn.Read(b)
	switch {
	case err == io.EOF:
		c.peerEnded.Store(true)
	case err != nil && c.closing.Load():
		err = net.ErrClosed
	}
	return n, err
}

// Write writes to the client.
func (c *served) Write(b []byte) (int, error) {
	if c.closing.Load() {
		return 0, net.ErrClosed
	}
	return c.Conn.Write(b)
}

// Close ends the connection. It returns at once.
func (c *served) Close() error {
	if c.closing.Swap(true) {
		return net.ErrClosed
	}
	close(c.closed)
	if err := c.CloseWrite(); err != nil || c.peerEnded.Load() {
		return c.Conn.Close()
	}
	// Whoever reads or writes now is woken.
	if err := c.SetDeadline(time.Unix(1, 0)); err != nil {
		return c.Conn.Close()
	}
	c.listener.lingering.Go(c.linger)
	return nil
}

// linger drops what the host still sends, until it ends.
func (c *served) linger() {
	defer c.Conn.Close()
	// A timer and no deadline: the server may still set one of its own.
	timer := time.AfterFunc(lingerTimeout, func() { c.Conn.Close() })
	defer timer.Stop()
	c.reading <- struct{}{}
	if c.SetReadDeadline(time.Time{}) == nil {
		// Neither what comes nor why it ends matters to anybody.
		_, _ = io.Copy(io.Discard, io.LimitReader(c.Conn, lingerBytes))
	}
}

// lingerBytes bounds what a client may go on sending.
const lingerBytes = 1 << 20
