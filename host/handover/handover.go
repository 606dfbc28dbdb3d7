// Package handover gives the listening sockets of a process to the next one, so
// that a host is replaced without a client noticing: the queues of the sockets go
// on, and whoever accepts from them changes. It knows nothing of connections,
// which stay where they are, nor of what is served on a socket.
package handover

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
)

// Variable names the file descriptor on which a process hears from its
// predecessor. It is set for the new process alone.
const Variable = "CORRIDOR_HANDOVER_FD"

// ErrNotReady reports that the new process did not take over, and is gone. The old
// one goes on; the caller may try again.
var ErrNotReady = errors.New("handover: the new process did not take over")

// Sockets are the listening sockets of this process, by name. It is safe for
// concurrent use.
type Sockets struct {
	mu        sync.Mutex
	inherited map[string]*os.File
	open      map[string]*Listener
}

// NewSockets returns Sockets with what the predecessor left; nil is nothing.
func NewSockets(inherited map[string]*os.File) *Sockets {
	if inherited == nil {
		inherited = map[string]*os.File{}
	}
	return &Sockets{inherited: inherited, open: map[string]*Listener{}}
}

// An OpenFunc opens a socket, and an AdoptFunc makes a listener of one that was
// inherited. It does not keep the file.
type (
	OpenFunc  func() (net.Listener, error)
	AdoptFunc func(*os.File) (net.Listener, error)
)

// Listen returns the socket of that name: the inherited one, or a new one.
func (s *Sockets) Listen(name string, open OpenFunc, adopt AdoptFunc) (*Listener, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[name] != nil {
		return nil, fmt.Errorf("handover: socket %s is open already", name)
	}
	var inner net.Listener
	var err error
	if file := s.inherited[name]; file != nil {
		delete(s.inherited, name)
		inner, err = adopt(file)
		file.Close()
		if err != nil {
			return nil, fmt.Errorf("handover: socket %s: %w", name, err)
		}
		setUnlink(inner, false) // not ours alone until Settle
	} else if inner, err = open(); err != nil {
		return nil, err
	}
	l := &Listener{Listener: inner, name: name, sockets: s, closed: make(chan struct{})}
	s.open[name] = l
	return l, nil
}

// Unused returns the names of sockets that were inherited and that nobody has asked
// for yet, in order.
func (s *Sockets) Unused() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.inherited))
}

// Settle says that this process has taken over: it removes the names of its
// sockets when it closes them, and closes what it inherited and did not want.
func (s *Sockets) Settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, file := range s.inherited {
		file.Close()
		delete(s.inherited, name)
	}
	for _, l := range s.open {
		setUnlink(l.Listener, true)
	}
}

// Retire leaves the sockets to the successor. Nothing is accepted here any more,
// but whoever accepts learns of it only by Close: what is served goes on.
func (s *Sockets) Retire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.open {
		l.retire()
	}
}

func (s *Sockets) forget(l *Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[l.name] == l {
		delete(s.open, l.name)
	}
}

// setUnlink says whether closing a unix socket removes its name.
func setUnlink(l net.Listener, v bool) {
	if u, ok := l.(interface{ SetUnlinkOnClose(unlink bool) }); ok {
		u.SetUnlinkOnClose(v)
	}
}

// A Listener is one socket.
//
//	            Close
//	open ──────────────────────► closed
//	  │ Retire                     ▲
//	  └────► retired ──── Close ───┘
//	         (Accept waits)
type Listener struct {
	net.Listener
	name    string
	sockets *Sockets

	retired sync.Once
	closing sync.Once
	closed  chan struct{}
}

// Accept waits for a connection. After Retire it waits for Close.
func (l *Listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil && errors.Is(err, net.ErrClosed) {
		<-l.closed
	}
	return conn, err
}

// Close closes the socket.
func (l *Listener) Close() error {
	l.sockets.forget(l)
	err := net.ErrClosed
	l.closing.Do(func() {
		close(l.closed)
		err = nil
	})
	l.retired.Do(func() { err = l.Listener.Close() })
	return err
}

// retire closes the socket here alone.
func (l *Listener) retire() {
	setUnlink(l.Listener, false)
	l.retired.Do(func() { l.Listener.Close() })
}
