package inbound

import (
	"net"
	"sync"

	"github.com/corridor-enclave/corridor/tapstack/stream"
)

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
	return stream.Linger(c, &l.lingering), nil
}

// Close stops accepting, and closes streams that have no client yet.
func (l *Listener) Close() error { return l.acceptor.close() }

// Counts returns the counters of now.
func (l *Listener) Counts() Counts { return l.acceptor.counts() }

// Addr is the VSOCK endpoint that is listened on.
func (l *Listener) Addr() net.Addr { return l.acceptor.cfg.Listener.Addr() }

// Wait returns when no connection that was closed lingers any more, which takes
// two seconds at the most. It is called when no more will be closed.
func (l *Listener) Wait() { l.lingering.Wait() }
