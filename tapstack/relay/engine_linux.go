package relay

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// An Engine relays sockets, many of them on few goroutines: one that is quiet
// costs two descriptors and some hundred bytes, and a message wakes nobody but
// the loop that passes it on. Connections that are no sockets it relays as the
// function Relay does. The zero value is ready; it keeps nothing when no relay is
// under way.
type Engine struct {
	mu    sync.Mutex
	loops []*loop
}

// A Socketed is a connection of which nothing is left to know once its socket was
// duplicated: then Close gives back what it has, and the peer does not notice.
// CloseWrite ends the socket's direction; closing the socket is the reset. If it
// ends its stream before we ended ours, and takes nothing any more, it has reset
// it: see WIRE.md, section 11.3.
type Socketed interface {
	syscall.Conn
	// Socketed does nothing: to have it is the promise.
	Socketed()
}

// Relay is the function Relay, on a loop of the engine where both connections are
// TCP, unix or Socketed. Such a relay gives its own descriptors to the sockets, so
// their connections are closed when it begins, to Go but not to the peer.
func (e *Engine) Relay(ctx context.Context, a, b net.Conn, o Options) (Result, error) {
	p, ok := detach(a, b, o)
	if !ok {
		return Relay(ctx, a, b, o)
	}
	if err := e.pick().add(p); err != nil {
		p.giveUp(fmt.Errorf("relay: %w", err))
		return p.result()
	}
	unwatch := context.AfterFunc(ctx, func() { p.giveUp(stopped(ctx)) })
	idle := watchIdle(p, o.IdleTimeout)
	<-p.done
	unwatch()
	idle.stop()
	return p.result()
}

// pick returns the loop with the fewest relays. There are half as many loops as
// goroutines can run at once: the rest of the process wants to run too, and a loop
// that is asked for more has more to do each time it wakes up.
func (e *Engine) pick() *loop {
	e.mu.Lock()
	defer e.mu.Unlock()
	var least *loop
	for _, l := range e.loops {
		if least == nil || l.pairs.Load() < least.pairs.Load() {
			least = l
		}
	}
	if least != nil && (least.pairs.Load() == 0 || len(e.loops) >= max(1, runtime.GOMAXPROCS(0)/2)) {
		return least
	}
	least = &loop{}
	e.loops = append(e.loops, least)
	return least
}

// detach takes the sockets out of the connections, which are closed then. It is
// not ok if that cannot be; then nothing was done to them.
func detach(a, b net.Conn, o Options) (*pair, bool) {
	if o.BufferSize > DefaultBufferSize {
		return nil, false
	}
	p := &pair{done: make(chan struct{}), size: chunkSize(o, a, b)}
	if !p.a.duplicate(a) {
		return nil, false
	}
	if !p.b.duplicate(b) {
		unix.Close(p.a.fd)
		return nil, false
	}
	p.a.pair, p.a.other, p.a.side, p.a.total = p, &p.b, SideA, o.AToB
	p.b.pair, p.b.other, p.b.side, p.b.total = p, &p.a, SideB, o.BToA
	a.Close() // from here on the runtime does not poll the sockets
	b.Close()
	return p, true
}

// duplicate gives the end a descriptor of the connection's socket.
func (e *end) duplicate(c net.Conn) bool {
	var socket syscall.Conn
	switch x := c.(type) {
	case *net.TCPConn:
		socket, e.resets = x, true
	case *net.UnixConn:
		socket = x
	case Socketed:
		socket, e.ordered = x, true
	default:
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	var dupErr error
	err = raw.Control(func(fd uintptr) { e.fd, dupErr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	return err == nil && dupErr == nil
}
