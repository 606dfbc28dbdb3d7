package egress

import (
	"context"
	"errors"
	"net/netip"

	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// maxKept bounds the enclaves that are remembered without a connection. More
// than a machine has at a time, since CIDs are not used again.
const maxKept = 64

// errPending reports a destination that answers none of many calls.
var errPending = errors.New("egress: too many connections to this destination are not yet answered")

// An enclave is what is known of one that calls. It is remembered while it has no
// connection, so that its limits on log lines, and what it learned of names,
// outlive one. All but outside belongs to the Server's lock.
type enclave struct {
	outside Outside
	cancel  context.CancelFunc // ends outside

	open    int // streams, from when they are accepted
	calling int // of these, not connected yet
	pending map[netip.AddrPort]int
}

// enter counts one more stream of the enclave, or returns nil if there is no room.
func (s *Server) enter(ctx context.Context, cid vsockconn.CID) *enclave {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.enclaves[cid]
	if e == nil {
		s.forget()
		ctx, cancel := context.WithCancel(ctx)
		e = &enclave{outside: s.cfg.Outside(ctx, cid), cancel: cancel, pending: map[netip.AddrPort]int{}}
		s.enclaves[cid] = e
	}
	if e.open >= s.cfg.Limits.Open || e.calling >= s.cfg.Limits.Calling {
		return nil
	}
	e.open++
	e.calling++
	return e
}

// forget drops an enclave without a connection if there are too many.
func (s *Server) forget() {
	if len(s.enclaves) < maxKept {
		return
	}
	for cid, e := range s.enclaves {
		if e.open == 0 {
			e.cancel()
			delete(s.enclaves, cid)
			return
		}
	}
}

// connected says that a call has been answered, well or not.
func (s *Server) connected(e *enclave) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.calling--
}

func (s *Server) leave(e *enclave) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.open--
}

// begin counts one more dial to the destination, if there is room.
func (s *Server) begin(e *enclave, to netip.AddrPort) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.pending[to] >= s.cfg.Limits.Pending {
		return false
	}
	e.pending[to]++
	return true
}

func (s *Server) end(e *enclave, to netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.pending[to]--; e.pending[to] == 0 {
		delete(e.pending, to)
	}
}
