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

	"github.com/corridor-enclave/corridor/host/route"
	"github.com/corridor-enclave/corridor/tapstack/exposition"
	"github.com/corridor-enclave/corridor/tapstack/pacing"
	"github.com/corridor-enclave/corridor/tapstack/relay"
	"github.com/corridor-enclave/corridor/tapstack/sometimes"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// A port is one published address.
type port struct {
	publisher *Publisher
	local     string // as Spec.Local
	plan      atomic.Pointer[plan]
	listener  net.Listener
	stopped   chan struct{}
	stopOnce  sync.Once

	active, accepted, failures atomic.Int64
	refusals                   [refusals]atomic.Int64
	downlink, uplink           atomic.Int64 // bytes
	dials                      *exposition.Histogram

	failing sometimes.Logger // tells of clients who come to nothing
}

// A plan is where the clients of a port go. The connections that are there keep
// the one they came with.
type plan struct {
	Port
	table route.Table
}

func newPort(p *Publisher, to *plan, l net.Listener) *port {
	q := &port{publisher: p, local: to.Local, listener: l, stopped: make(chan struct{}), dials: exposition.NewDurations(), failing: sometimes.Logger{Log: p.config.Log}}
	q.plan.Store(to)
	return q
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
	if ready := q.publisher.config.LinkReady; ready != nil && q.plan.Load().Road == Link {
		select {
		case <-ready:
		case <-q.stopped:
			return
		}
	}
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
			if !q.carry(conn, from) {
				q.leave(from.Addr())
			}
		})
	}
}

// enter counts the client in, or says why not.
func (q *port) enter(client netip.Addr) (refusal, bool) {
	if q.active.Add(1) > int64(q.publisher.tuning.Load().Limits.PerPort) {
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
	return pacing.Pause(q.stopped, pacing.Accept)
}

// carry brings one client to an enclave. A client that cannot be brought there
// is reset, so that it does not take the silence for an answer; then carry returns
// false. Else a relay has begun, and takes the client out in the end.
//
// The relay is a goroutine of its own, because it may be quiet for hours: the stack
// of this one has grown while connecting, and stays as large as long as it runs.
func (q *port) carry(client net.Conn, from netip.AddrPort) bool {
	p, to := q.publisher, q.plan.Load()
	said, cids, ok := q.meant(client, to)
	if !ok {
		q.refuse(client, from, nameless)
		return false
	}
	defer said.Release()
	if p.waiting.Add(1) > int64(p.tuning.Load().Limits.Dials) {
		p.waiting.Add(-1)
		q.refuse(client, from, tooManyWaiting)
		return false
	}
	call := Call{Client: from, Local: addrPortOf(client.LocalAddr()), ID: p.newID(), To: to.Spec}
	began := time.Now()
	inside, leave, err := q.dial(call, cids)
	p.waiting.Add(-1)
	if err != nil {
		q.failures.Add(1)
		q.failed("client not carried", from.String(), err)
		reset(client)
		return false
	}
	q.dials.ObserveDuration(time.Since(began))
	if err := q.pass(said, inside); err != nil {
		q.failures.Add(1)
		q.failed("client not carried", from.String(), err)
		inside.Close()
		leave()
		reset(client)
		return false
	}
	p.running.Go(func() {
		defer q.leave(from.Addr())
		defer leave()
		q.relay(client, inside, call)
	})
	return true
}

func (q *port) relay(client, inside net.Conn, call Call) {
	p := q.publisher
	result, err := p.relays.Relay(p.hard, client, inside, relay.Options{
		IdleTimeout: p.tuning.Load().IdleTimeout, AToB: &q.downlink, BToA: &q.uplink,
	})
	p.config.Log.Debug("connection ended", "addr", q.local, "client", call.Client.String(), "id", call.ID,
		"downlink_bytes", result.AToB, "uplink_bytes", result.BToA, "err", err)
}

// meant returns the enclaves that the client is meant for, and what it said to
// tell so, if the port has routes. It is not ok if there are none.
func (q *port) meant(client net.Conn, to *plan) (said *route.Peeked, cids []vsockconn.CID, ok bool) {
	if to.table.Empty() {
		return nil, to.Enclaves, true
	}
	said, err := route.Peek(q.publisher.hard, client)
	if err != nil {
		return nil, nil, false
	}
	if cids, ok = to.table.Find(said.Name); ok {
		return said, cids, true
	}
	if len(to.Enclaves) == 0 {
		said.Release()
		return nil, nil, false
	}
	return said, to.Enclaves, true
}

// dial connects to one of the enclaves; without any, to the only one there is.
func (q *port) dial(call Call, cids []vsockconn.CID) (net.Conn, func(), error) {
	p := q.publisher
	ctx, cancel := context.WithTimeout(p.hard, p.config.Hold)
	defer cancel()
	if len(cids) == 0 {
		only, err := p.config.Only(ctx)
		if err != nil {
			return nil, nil, err
		}
		cids = []vsockconn.CID{only}
	}
	road := p.config.Link
	if call.To.Road == Stream {
		road = p.config.Stream
	}
	return p.config.Balancer.Dial(ctx, cids, func(ctx context.Context, cid vsockconn.CID, wait bool) (net.Conn, error) {
		call := call
		call.CID, call.Wait = cid, wait
		return road(ctx, call)
	})
}

// pass gives the enclave what the client said already. It fits into any socket's
// buffer, but an enclave need not grant one.
func (q *port) pass(said *route.Peeked, inside net.Conn) error {
	if said == nil {
		return nil
	}
	if err := inside.SetWriteDeadline(time.Now().Add(q.publisher.config.Hold)); err != nil {
		return err
	}
	if _, err := inside.Write(said.Said); err != nil {
		return err
	}
	said.Release()
	return inside.SetWriteDeadline(time.Time{})
}

// failed logs a failure that clients can cause at will, at most once in a while.
func (q *port) failed(msg, client string, err error) {
	q.failing.Warn(msg, "addr", q.local, "client", client, "err", err)
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
