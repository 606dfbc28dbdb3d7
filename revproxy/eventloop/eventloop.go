// Package eventloop runs many connections on few goroutines. Each is served by a
// task: a coroutine that is written as if it waited, and that gives way to others
// on its loop when a socket has nothing for it. So a message costs no hand-off
// from goroutine to goroutine, one wait serves all that has come meanwhile, and no
// read finds nothing. It knows sockets and time, and nothing of what is said.
package eventloop

import (
	"errors"
	"net"
	"os"
	"syscall"
)

// ErrGone reports that the connection that a task minds was ended by its peer,
// or closed here, while the task waited for another.
var ErrGone = errors.New("eventloop: the minded connection is gone")

// A Socket is a connection of another kind than TCP and unix sockets that can be taken
// as well: it is a stream socket and nothing besides, but for what it says of its
// addresses, which the loop's Conn goes on saying.
type Socket interface {
	net.Conn
	syscall.Conn
	// Rebuild makes a connection of the same kind of a descriptor of the socket, which
	// it owns, also after an error.
	Rebuild(file *os.File) (net.Conn, error)
}
