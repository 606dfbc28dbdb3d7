// Package eventloop runs many connections on few goroutines. Each is served by a
// task: a coroutine that is written as if it waited, and that gives way to others
// on its loop when a socket has nothing for it. So a message costs no hand-off
// from goroutine to goroutine, one wait serves all that has come meanwhile, and no
// read finds nothing. It knows sockets and time, and nothing of what is said.
package eventloop

import (
	"errors"
	"net"
)

// ErrGone reports that the connection that a task watches was ended by its peer,
// or closed here, while the task waited for another.
var ErrGone = errors.New("eventloop: the watched connection is gone")

// addresses are what a connection goes on saying of itself.
type addresses struct{ local, remote net.Addr }

func (a addresses) LocalAddr() net.Addr  { return a.local }
func (a addresses) RemoteAddr() net.Addr { return a.remote }
