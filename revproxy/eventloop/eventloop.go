// Package eventloop runs many connections on few goroutines. Each is served by a
// task: a coroutine that is written as if it waited, and that gives way to others
// on its loop when a socket has nothing for it. So a message costs no hand-off
// from goroutine to goroutine, one wait serves all that has come meanwhile, and no
// read finds nothing. It knows sockets and time, and nothing of what is said.
package eventloop

import (
	"errors"
	"net"
	"time"
)

// ErrGone reports that the connection that a task watches was ended by its peer,
// or closed here, while the task waited for another.
var ErrGone = errors.New("eventloop: the watched connection is gone")

// A Detacher is a connection that can be taken from the runtime's poller: Detach
// returns a descriptor of its socket, which does not block and from then on stands
// for the connection, and closes the rest of it, without the peer's noticing. An
// error says that nothing was done. The descriptor's owner calls closed once, when
// it has closed it.
type Detacher interface {
	Detach() (fd int, closed func(), err error)
}

// An Orderly is a Detacher whose stream has no reset, as those over AF_VSOCK: ends
// tell a reset from an end by their order. Such a connection takes writes of at most
// WriteMax bytes (0: any), its peer has reset it if it takes nothing any more
// before our own end, and it is closed only once the peer has ended too, or
// Lingers has passed.
type Orderly interface {
	WriteMax() int
	Lingers() time.Duration
}

// keep is what a detached connection goes on saying of itself.
type addresses struct{ local, remote net.Addr }

func (a addresses) LocalAddr() net.Addr  { return a.local }
func (a addresses) RemoteAddr() net.Addr { return a.remote }
