// Package egress connects enclaves to the outside by calls: one VSOCK stream for
// each connection, without a link and its second TCP (WIRE.md, section 12). Where
// an enclave may connect to, and what names stand for, gateway decides, by the
// policy of the link. What is carried is nobody's business here.
package egress

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/corridor-enclave/corridor/host/gateway"
	"github.com/corridor-enclave/corridor/tapstack/pacing"
	"github.com/corridor-enclave/corridor/tapstack/relay"
	"github.com/corridor-enclave/corridor/tapstack/stream"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

const (
	// callTimeout bounds the call from when the stream is accepted.
	callTimeout = 5 * time.Second
	// replyTimeout bounds the writing of a reply.
	replyTimeout = 5 * time.Second
	// dialTimeout is how long all addresses of a destination may take together.
	dialTimeout = 10 * time.Second
	// leastShare is the least of it that one of several addresses gets.
	leastShare = 2 * time.Second
	// maxTries bounds the addresses of a name that are tried.
	maxTries = 4
)

// Limits bound what one enclave may have.
type Limits struct {
	Open    int // connections
	Calling int // of these, not connected yet
	Pending int // of these, to one destination
}

// DefaultLimits are those of connections through the link.
func DefaultLimits() Limits { return Limits{Open: 8192, Calling: 1024, Pending: 256} }

// An Outside is what one enclave may reach; *gateway.Outside is one.
type Outside interface {
	Find(name string, addr netip.Addr, port uint16) ([]netip.AddrPort, error)
}

// Config says who may call, and where to.
type Config struct {
	// Listener is of a vsockconn.Transport, and is owned from the call on.
	Listener net.Listener
	// Outside returns what an enclave may reach until ctx ends.
	Outside func(ctx context.Context, cid vsockconn.CID) Outside
	// Limits are those of each enclave; zero is DefaultLimits.
	Limits Limits
	// Log gets what an operator should know; it must not be nil.
	Log *slog.Logger
}

// A Server takes calls. Make one with New; Run it once.
type Server struct {
	cfg  Config
	dial net.Dialer

	open             atomic.Int64
	uplink, downlink atomic.Uint64
	replies          [statuses]atomic.Uint64

	stopped  chan struct{} // closed once nothing more is accepted
	draining atomic.Bool

	mu       sync.Mutex
	enclaves map[vsockconn.CID]*enclave
	streams  int           // from when they are accepted
	empty    chan struct{} // not nil while somebody waits until there are none
}

// statuses are those that this host replies.
const statuses = int(stream.Failed) + 1

// Counts are what a Server did since it was made, but for Open.
type Counts struct {
	Open                       int64
	Replies                    map[stream.Status]uint64 // all that this host knows
	UplinkBytes, DownlinkBytes uint64                   // of connections that have ended
}

// New returns a Server.
func New(c Config) *Server {
	if c.Limits == (Limits{}) {
		c.Limits = DefaultLimits()
	}
	return &Server{cfg: c, stopped: make(chan struct{}), enclaves: map[vsockconn.CID]*enclave{}}
}

// Counts returns the numbers so far.
func (s *Server) Counts() Counts {
	c := Counts{
		Open: s.open.Load(), Replies: make(map[stream.Status]uint64, statuses),
		UplinkBytes: s.uplink.Load(), DownlinkBytes: s.downlink.Load(),
	}
	for i := range s.replies {
		c.Replies[stream.Status(i)] = s.replies[i].Load()
	}
	return c
}

// Close closes the listener of a Server that never runs.
func (s *Server) Close() error { return s.cfg.Listener.Close() }

// Drain takes no more calls of a Server that runs, and returns when the last
// connection has ended or ctx has. Nothing is reset: that is for the end of Run.
func (s *Server) Drain(ctx context.Context) {
	s.draining.Store(true)
	s.cfg.Listener.Close()
	select {
	case <-s.stopped:
	case <-ctx.Done():
		return
	}
	s.mu.Lock()
	if s.streams == 0 {
		s.mu.Unlock()
		return
	}
	if s.empty == nil {
		s.empty = make(chan struct{})
	}
	empty := s.empty
	s.mu.Unlock()
	select {
	case <-empty:
	case <-ctx.Done():
	}
}

// begun counts a stream that was accepted.
func (s *Server) begun() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams++
}

func (s *Server) ended() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams--; s.streams == 0 && s.empty != nil {
		close(s.empty)
		s.empty = nil
	}
}

// Run takes calls until ctx ends, which resets all connections, or the listener
// fails.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { s.cfg.Listener.Close() })
	defer stop()
	var calls sync.WaitGroup
	defer calls.Wait()
	defer cancel() // first, so that there is something to wait for
	s.cfg.Log.Info("listening", "part", "calls", "addr", s.cfg.Listener.Addr().String())
	err := s.accept(ctx, &calls)
	close(s.stopped)
	if err == nil {
		<-ctx.Done()
	}
	return err
}

// accept returns nil once nothing more is to be accepted.
func (s *Server) accept(ctx context.Context, calls *sync.WaitGroup) error {
	for {
		conn, err := s.cfg.Listener.Accept()
		switch {
		case err == nil:
			s.begun()
			calls.Go(func() {
				defer s.ended()
				s.serve(ctx, stream.New(conn))
			})
		case ctx.Err() != nil, s.draining.Load():
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("egress: accept calls: %w", err)
		default:
			s.cfg.Log.Warn("call not accepted", "err", err)
			pacing.Pause(ctx.Done(), pacing.Accept)
		}
	}
}

// serve carries one call to the end of its connection.
//
//	accepted ──► call ──► find ──► dial ──► reply ──► relay
//	   │ too many  │ none, late │ denied, no name, no resolver, refused, late
//	   ▼           ▼            ▼
//	 reply       reply        reply, and the stream ends
func (s *Server) serve(ctx context.Context, c *stream.Conn) {
	cid, ok := vsockconn.PeerCID(c)
	if !ok {
		c.Close() // no enclave
		return
	}
	log := s.cfg.Log.With("cid", uint32(cid), "part", "calls")
	e := s.enter(ctx, cid)
	if e == nil {
		s.refuse(c, stream.Crowded, "too many connections of this enclave")
		return
	}
	defer s.leave(e)
	call, err := s.hear(ctx, c)
	if err != nil && !errors.Is(err, stream.ErrCall) {
		s.connected(e)
		c.Close() // nobody is there, or says nothing
		return
	}
	var outside net.Conn
	if err == nil {
		outside, err = s.connect(ctx, e, call)
	}
	s.connected(e)
	if err != nil {
		log.Debug("call not connected", "to", call.String(), "err", err)
		status, reason := judge(err)
		s.refuse(c, status, reason)
		return
	}
	if !s.reply(c, stream.Reply{Status: stream.Connected, Reason: outside.RemoteAddr().String()}) {
		_ = c.Reset() // the enclave is gone, or does not read
		outside.Close()
		return
	}
	s.open.Add(1)
	result, err := relay.Relay(ctx, c, outside, relay.Options{})
	s.open.Add(-1)
	s.uplink.Add(uint64(result.AToB))
	s.downlink.Add(uint64(result.BToA))
	log.Debug("connection ended", "to", call.String(), "uplink_bytes", result.AToB, "downlink_bytes", result.BToA, "err", err)
}

// hear reads the call.
func (s *Server) hear(ctx context.Context, c *stream.Conn) (stream.Call, error) {
	if err := c.SetReadDeadline(time.Now().Add(callTimeout)); err != nil {
		return stream.Call{}, err
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	call, err := stream.ReadCall(c)
	if err != nil {
		return stream.Call{}, err
	}
	return call, c.SetReadDeadline(time.Time{})
}

// connect does as the call says.
func (s *Server) connect(ctx context.Context, e *enclave, call stream.Call) (net.Conn, error) {
	patience := dialTimeout
	if call.Patience > 0 {
		patience = min(patience, call.Patience)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	found, err := e.outside.Find(call.Name, call.Addr, call.Port)
	if err != nil {
		return nil, err
	}
	return s.reach(ctx, e, found[:min(len(found), maxTries)])
}

// reach tries the addresses in order. The error is the first one's.
func (s *Server) reach(ctx context.Context, e *enclave, found []netip.AddrPort) (net.Conn, error) {
	var first error
	for i, to := range found {
		if !s.begin(e, to) {
			return nil, errPending
		}
		conn, err := s.try(ctx, to, len(found)-i)
		s.end(e, to)
		if err == nil {
			return conn, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

// try gives one address its share of the time.
func (s *Server) try(ctx context.Context, to netip.AddrPort, left int) (net.Conn, error) {
	if deadline, ok := ctx.Deadline(); ok && left > 1 {
		share := max(time.Until(deadline)/time.Duration(left), leastShare)
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, share)
		defer cancel()
	}
	return s.dial.DialContext(ctx, "tcp", to.String())
}

// judge turns an error into what the enclave is told.
func judge(err error) (stream.Status, string) {
	var late interface{ Timeout() bool }
	switch {
	case errors.Is(err, stream.ErrCall):
		return stream.Misunderstood, err.Error()
	case errors.Is(err, gateway.ErrDenied):
		return stream.Denied, err.Error()
	case errors.Is(err, gateway.ErrNoName):
		return stream.NoSuchName, err.Error()
	case errors.Is(err, gateway.ErrNoResolver):
		return stream.NoResolver, err.Error()
	case errors.Is(err, errPending):
		return stream.Crowded, err.Error()
	case errors.Is(err, syscall.ECONNREFUSED):
		return stream.Refused, "nothing listens there"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return stream.Unreachable, "no way there"
	case errors.As(err, &late) && late.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return stream.TooSlow, "no answer in time"
	}
	return stream.Failed, err.Error()
}

// reply says how the call ended, and reports whether it could.
func (s *Server) reply(c *stream.Conn, r stream.Reply) bool {
	s.replies[r.Status].Add(1)
	if c.SetWriteDeadline(time.Now().Add(replyTimeout)) != nil {
		return false
	}
	if _, err := c.Write(r.Append(nil)); err != nil {
		return false
	}
	return c.SetWriteDeadline(time.Time{}) == nil
}

// refuse replies, and ends the stream.
func (s *Server) refuse(c *stream.Conn, status stream.Status, reason string) {
	s.reply(c, stream.Reply{Status: status, Reason: reason})
	_ = c.CloseWrite() // nothing is left to be said
	c.Close()
}
