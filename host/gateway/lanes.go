package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// lanesTimeout is how long a link waits for its further lanes. An enclave that lost
// its way opens another one.
const lanesTimeout = 10 * time.Second

// errNoSuchLink reports a lane of a link that nobody waits for: it is complete, gave
// up, or never was.
var errNoSuchLink = errors.New("no link of that name waits for lanes")

// lanes are the links of which some lanes are still to come, by name.
//
//	enclave                    host
//	   | lanes=2                 |
//	   |------------------------>| expects one more
//	   |    lanes=4, link=NAME   |
//	   |<------------------------|
//	   | link=NAME (2nd stream)  |
//	   |------------------------>| attaches both
type lanes struct {
	most    int           // that this end takes
	timeout time.Duration // for those to come

	mu      sync.Mutex
	waiting map[string]chan net.Conn // with room for all that are to come
}

func newLanes(most int) *lanes {
	return &lanes{most: max(1, min(most, tapstack.MaxLanes)), timeout: lanesTimeout, waiting: map[string]chan net.Conn{}}
}

// answer is what the host says to an enclave that opens o. It fails for a lane of no
// link.
func (l *lanes) answer(o *opening, own, peer tapstack.Capabilities) (tapstack.Capabilities, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if peer.Link != "" {
		if l.waiting[peer.Link] == nil {
			return own, errNoSuchLink
		}
		o.name = peer.Link
		return own, nil
	}
	own.Lanes = l.most
	o.more = tapstack.AgreedLanes(own, peer) - 1
	if o.more == 0 {
		own.Lanes = 0 // nothing to say: as to enclaves that know no lanes
		return own, nil
	}
	// Before the answer, since the lanes may come before it returns.
	o.name = tapstack.NewLinkName()
	own.Link = o.name
	l.waiting[o.name] = make(chan net.Conn, o.more)
	return own, nil
}

// gather returns all connections of the link that o opens, when they are there. For
// one that is a further lane it returns none: who opened the link gets it. What
// does not become a link it closes.
func (l *lanes) gather(ctx context.Context, o *opening, cid vsockconn.CID) ([]net.Conn, error) {
	if o.more == 0 {
		if o.name == "" {
			return []net.Conn{o.conn}, nil
		}
		return nil, l.handOver(o)
	}
	defer l.forget(o)
	l.mu.Lock()
	come := l.waiting[o.name]
	l.mu.Unlock()
	conns := []net.Conn{o.conn}
	timeout := time.NewTimer(l.timeout)
	defer timeout.Stop()
	for len(conns) <= o.more {
		select {
		case conn := <-come:
			conns = append(conns, conn)
			if other, _ := vsockconn.PeerCID(conn); other != cid {
				closeAll(conns)
				return nil, fmt.Errorf("gateway: CID %d opened a lane of it", other)
			}
		case <-timeout.C:
			closeAll(conns)
			return nil, fmt.Errorf("gateway: %d of %d lanes did not come in %s", 1+o.more-len(conns), 1+o.more, l.timeout)
		case <-ctx.Done():
			closeAll(conns)
			return nil, nil
		}
	}
	return conns, nil
}

// handOver gives a lane to its link, or closes it.
func (l *lanes) handOver(o *opening) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.waiting[o.name] <- o.conn:
		return nil
	default: // gone, in between, or full
		o.conn.Close()
		return errNoSuchLink
	}
}

// forget ends the wait for the lanes of o, if it is the one that waits, and closes
// those that came nevertheless.
func (l *lanes) forget(o *opening) {
	if o.more == 0 {
		return
	}
	l.mu.Lock()
	come := l.waiting[o.name]
	delete(l.waiting, o.name)
	l.mu.Unlock()
	for {
		select {
		case conn := <-come:
			conn.Close()
		default:
			return
		}
	}
}

func closeAll(conns []net.Conn) {
	for _, conn := range conns {
		conn.Close()
	}
}
