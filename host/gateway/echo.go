package gateway

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/corridor-enclave/corridor/host/ping"
	"github.com/corridor-enclave/corridor/tapstack/netstack"
)

const (
	// maxEchoes bounds the echo requests of one enclave, of each version of IP, that
	// nobody has answered yet.
	maxEchoes = 256
	// echoPatience is how long one waits for its answer: as long as ping(8) waits for
	// the last one.
	echoPatience = 10 * time.Second
	// noPort stands where the policy asks for a port, and ICMP has none. Only rules
	// for all ports say something about it.
	noPort = 0
)

// A pinger is a ping.Socket.
type pinger interface {
	Send(to netip.Addr, hops int, sequence uint16, payload []byte) error
	Receive() (ping.Answer, error)
	Close() error
}

// openPing opens a socket of the kernel.
func openPing(is6 bool) (pinger, error) {
	s, err := ping.Open(is6)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// echoes are the echo requests (pings) that an enclave sends to the outside. They
// leave by one socket for each version of IP, which is opened for the first of them;
// their sequence numbers, which are the host's own there, tell them apart.
type echoes struct {
	policy   policy
	refusals *refusals
	open     func(is6 bool) (pinger, error)
	running  sync.WaitGroup

	total, refused, failed atomic.Uint64

	mu         sync.Mutex
	closed     bool
	via4, via6 *echoSocket // nil until they are needed
}

// An echoSocket is a socket and what is under way on it. The echoes' lock guards it.
type echoSocket struct {
	pinger
	last    uint16 // sequence number
	pending map[uint16]pendingEcho
}

// A pendingEcho is a request that nobody has answered.
type pendingEcho struct {
	request *netstack.Echo
	to      netip.Addr // as the host has it
	since   time.Time
}

func newEchoes(n *network, open func(is6 bool) (pinger, error)) *echoes {
	return &echoes{policy: n.policy, refusals: n.refusals, open: open}
}

// handle sends the request on, or says why not. It runs on the goroutine that reads
// the link and waits for nothing.
func (p *echoes) handle(e *netstack.Echo) {
	if e.Hops == 0 {
		e.Fail(netip.Addr{}, e.OwnError(netstack.TimeExceeded))
		return
	}
	to, no := p.policy.route(netip.AddrPortFrom(e.Destination, noPort))
	if no.cause != causeNone {
		p.refuse(e, no)
		e.Fail(netip.Addr{}, e.OwnError(netstack.Prohibited))
		return
	}
	payload := e.Payload
	e.Payload = nil // it need not wait for the answer
	s, sequence, no := p.enter(e, to.Addr())
	if no.cause != causeNone {
		p.refuse(e, no)
		return
	}
	p.total.Add(1)
	if err := s.Send(to.Addr(), e.Hops, sequence, payload); err != nil {
		p.failed.Add(1)
		p.take(s, sequence, to.Addr())
		if !errors.Is(err, syscall.EAGAIN) { // else it is lost, as on any network
			e.Fail(netip.Addr{}, e.OwnError(netstack.Unreachable))
		}
	}
}

func (p *echoes) refuse(e *netstack.Echo, no refusal) {
	p.refused.Add(1)
	p.refusals.note("icmp", e.Destination.String(), no)
}

// enter gives the request a sequence number of a socket, if there is one.
func (p *echoes) enter(e *netstack.Echo, to netip.Addr) (*echoSocket, uint16, refusal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, err := p.socket(to.Is6())
	if err != nil {
		return nil, 0, refusal{causeNoPing, err.Error()}
	}
	now := time.Now()
	if len(s.pending) >= maxEchoes {
		s.expire(now)
	}
	if len(s.pending) >= maxEchoes {
		return nil, 0, refusal{causeTooMany, "too many echo requests of this enclave are not yet answered"}
	}
	s.last++
	for _, taken := s.pending[s.last]; taken; _, taken = s.pending[s.last] {
		s.last++
	}
	s.pending[s.last] = pendingEcho{request: e, to: to, since: now}
	return s, s.last, refusal{}
}

// socket returns that of a version of IP, opened if need be. The lock is held.
func (p *echoes) socket(is6 bool) (*echoSocket, error) {
	at := &p.via4
	if is6 {
		at = &p.via6
	}
	if *at != nil {
		return *at, nil
	}
	if p.closed {
		return nil, ErrClosed
	}
	socket, err := p.open(is6)
	if err != nil {
		return nil, err
	}
	s := &echoSocket{pinger: socket, pending: map[uint16]pendingEcho{}}
	*at = s
	p.running.Go(func() { p.receive(s) })
	return s, nil
}

// expire forgets the requests that nobody will answer any more.
func (s *echoSocket) expire(now time.Time) {
	for sequence, f := range s.pending {
		if now.Sub(f.since) > echoPatience {
			delete(s.pending, sequence)
		}
	}
}

// receive brings answers to the enclave until the socket is closed.
func (p *echoes) receive(s *echoSocket) {
	for {
		a, err := s.Receive()
		if err != nil {
			return
		}
		e := p.take(s, a.Sequence, a.To)
		switch {
		case e == nil:
		case !a.Failed:
			e.Reply(a.Payload)
		default:
			p.failed.Add(1)
			if passes(a) {
				e.Fail(presentableRouter(a.From), netstack.ICMPError{Type: a.Type, Code: a.Code})
			}
		}
	}
}

// take returns the request that something came back for, and forgets it: nil if
// there is none.
func (p *echoes) take(s *echoSocket, sequence uint16, to netip.Addr) *netstack.Echo {
	p.mu.Lock()
	defer p.mu.Unlock()
	f, ok := s.pending[sequence]
	if !ok || f.to != to {
		return nil
	}
	delete(s.pending, sequence)
	return f.request
}

// passes reports whether the enclave may learn of the error: that its request did
// not arrive, or had no hops left. What the size of packets is on the way is for the
// host's kernel, which sends them.
func passes(a ping.Answer) bool {
	const unreachable4, tooLarge, exceeded4, unreachable6, exceeded6 = 3, 4, 11, 1, 3 // RFC 792, RFC 4443
	if a.To.Is6() {
		return a.Type == unreachable6 || a.Type == exceeded6
	}
	return a.Type == exceeded4 || (a.Type == unreachable4 && a.Code != tooLarge)
}

// presentableRouter returns the address in whose name an error may be told, or the
// zero one.
func presentableRouter(addr netip.Addr) netip.Addr {
	if !addr.IsGlobalUnicast() {
		return netip.Addr{}
	}
	return addr
}

// close ends the sockets and returns when their goroutines are gone.
func (p *echoes) close() {
	p.mu.Lock()
	p.closed = true
	for _, s := range []*echoSocket{p.via4, p.via6} {
		if s != nil {
			s.Close()
		}
	}
	p.mu.Unlock()
	p.running.Wait()
}

func (p *echoes) stats() ProtocolStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	open := 0
	for _, s := range []*echoSocket{p.via4, p.via6} {
		if s != nil {
			s.expire(time.Now())
			open += len(s.pending)
		}
	}
	return ProtocolStats{Open: int64(open), Total: p.total.Load(), Refused: p.refused.Load(), Failed: p.failed.Load()}
}
