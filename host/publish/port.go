package publish

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/corridor-enclave/corridor/tapstack/relay"
)

const (
	// acceptPause is how long a port waits when the machine has no room for
	// another connection (file descriptors, memory).
	acceptPause = 50 * time.Millisecond
	// logEvery is the shortest time between two lines about failing clients.
	logEvery = 10 * time.Second
)

// A port is one published address.
type port struct {
	publisher *Publisher
	spec      Spec
	listener  net.Listener
	slots     chan struct{} // one for each connection
	stopped   chan struct{}
	stopOnce  sync.Once

	logged  atomic.Int64 // when a failure was logged last, in Unix nanoseconds
	skipped atomic.Int64 // failures not logged since
}

func newPort(p *Publisher, s Spec, l net.Listener) *port {
	return &port{
		publisher: p, spec: s, listener: l,
		slots: make(chan struct{}, p.config.MaxConns), stopped: make(chan struct{}),
	}
}

func (q *port) stop() {
	q.stopOnce.Do(func() {
		close(q.stopped)
		q.listener.Close()
	})
}

// accept takes clients until the port is stopped.
func (q *port) accept() {
	for {
		select {
		case q.slots <- struct{}{}:
		case <-q.stopped:
			return
		}
		conn, err := q.listener.Accept()
		if err != nil {
			<-q.slots
			if errors.Is(err, net.ErrClosed) || !q.pause(err) {
				return
			}
			continue
		}
		q.publisher.running.Go(func() {
			defer func() { <-q.slots }()
			q.carry(conn)
		})
	}
}

// pause reports whether to go on accepting.
func (q *port) pause(err error) bool {
	q.failed("client not accepted", "", err)
	timer := time.NewTimer(acceptPause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-q.stopped:
		return false
	}
}

// carry brings one client to the enclave. A client that cannot be brought there
// is reset, so that it does not take the silence for an answer.
func (q *port) carry(client net.Conn) {
	q.publisher.count(1)
	defer q.publisher.count(-1)
	log := q.publisher.config.Log
	from := addrPortOf(client.RemoteAddr())
	inside, err := q.dial(from)
	if err != nil {
		q.failed("client not carried", from.String(), err)
		reset(client)
		return
	}
	result, err := relay.Relay(q.publisher.hard, client, inside, relay.Options{})
	log.Debug("connection ended", "addr", q.spec.Local, "client", from.String(),
		"downlink_bytes", result.AToB, "uplink_bytes", result.BToA, "err", err)
}

func (q *port) dial(from netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(q.publisher.hard, q.publisher.config.Hold)
	defer cancel()
	return q.publisher.config.Dial(ctx, from, q.spec.CID, q.spec.Port)
}

// failed logs a failure that clients can cause at will, at most once in a while.
func (q *port) failed(msg, client string, err error) {
	now := time.Now().UnixNano()
	last := q.logged.Load()
	if now-last < int64(logEvery) || !q.logged.CompareAndSwap(last, now) {
		q.skipped.Add(1)
		return
	}
	q.publisher.config.Log.Warn(msg, "addr", q.spec.Local, "client", client, "err", err, "not_logged", q.skipped.Swap(0))
}

// reset closes the connection such that the peer sees an error, where it can.
func reset(c net.Conn) {
	if l, ok := c.(interface{ SetLinger(sec int) error }); ok {
		// If it fails, the connection is gone already.
		_ = l.SetLinger(0)
	}
	c.Close()
}

func addrPortOf(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.AddrPort()
	}
	return netip.AddrPort{}
}
