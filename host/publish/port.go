package publish

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/corridor-enclave/corridor/tapstack/exposition"
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
	stopped   chan struct{}
	stopOnce  sync.Once

	active, accepted, failures atomic.Int64
	refusals                   [refusals]atomic.Int64
	downlink, uplink           atomic.Int64 // bytes
	dials                      *exposition.Histogram

	logged  atomic.Int64 // when a failure was logged last, in Unix nanoseconds
	skipped atomic.Int64 // failures not logged since
}

func newPort(p *Publisher, s Spec, l net.Listener) *port {
	return &port{publisher: p, spec: s, listener: l, stopped: make(chan struct{}), dials: exposition.NewDurations()}
}

func (q *port) stop() {
	q.stopOnce.Do(func() {
		close(q.stopped)
		q.listener.Close()
	})
}

// accept takes clients until the port is stopped. One too many is refused at
// once: in the listener's queue it would hold a place for those who may come.
func (q *port) accept() {
	for {
		conn, err := q.listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) || !q.pause(err) {
				return
			}
			continue
		}
		q.accepted.Add(1)
		from := addrPortOf(conn.RemoteAddr())
		if why, ok := q.enter(from.Addr()); !ok {
			q.refuse(conn, from, why)
			continue
		}
		q.publisher.running.Go(func() {
			defer q.leave(from.Addr())
			q.carry(conn, from)
		})
	}
}

// enter counts the client in, or says why not.
func (q *port) enter(client netip.Addr) (refusal, bool) {
	if q.active.Add(1) > int64(q.publisher.config.Limits.PerPort) {
		q.active.Add(-1)
		return tooManyOnPort, false
	}
	why, ok := q.publisher.guests.enter(client)
	if !ok {
		q.active.Add(-1)
	}
	return why, ok
}

func (q *port) leave(client netip.Addr) {
	q.publisher.guests.leave(client)
	q.active.Add(-1)
}

// refuse resets a client who is one too many.
func (q *port) refuse(client net.Conn, from netip.AddrPort, why refusal) {
	q.refusals[why].Add(1)
	q.failed("client refused", from.String(), errors.New(why.String()))
	reset(client)
}

// pause reports whether to go on accepting.
func (q *port) pause(err error) bool {
	q.failures.Add(1)
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
func (q *port) carry(client net.Conn, from netip.AddrPort) {
	p := q.publisher
	call := Call{Client: from, Local: addrPortOf(client.LocalAddr()), ID: p.newID(), To: q.spec}
	select {
	case p.dials <- struct{}{}:
	default:
		q.refuse(client, from, tooManyWaiting)
		return
	}
	began := time.Now()
	inside, err := q.dial(call)
	<-p.dials
	if err != nil {
		q.failures.Add(1)
		q.failed("client not carried", from.String(), err)
		reset(client)
		return
	}
	q.dials.ObserveDuration(time.Since(began))
	result, err := relay.Relay(p.hard, client, inside, relay.Options{
		IdleTimeout: p.config.IdleTimeout, AToB: &q.downlink, BToA: &q.uplink,
	})
	p.config.Log.Debug("connection ended", "addr", q.spec.Local, "client", from.String(), "id", call.ID,
		"downlink_bytes", result.AToB, "uplink_bytes", result.BToA, "err", err)
}

func (q *port) dial(call Call) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(q.publisher.hard, q.publisher.config.Hold)
	defer cancel()
	if q.spec.Road == Stream {
		return q.publisher.config.Stream(ctx, call)
	}
	return q.publisher.config.Link(ctx, call)
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

// newID names a connection: the process, and its number in it.
func (p *Publisher) newID() string {
	var b [2 * 16]byte
	id := strconv.AppendUint(b[:0], p.process, 16)
	return string(strconv.AppendUint(append(id, '-'), p.calls.Add(1), 16))
}
