// Package egress is the way out of the enclave for what can be told to use it:
// the sidecar's own connections by DialContext, and the app's by SOCKS5 and by
// HTTP CONNECT on loopback. What may be reached is decided in here, by a policy
// that is part of what the enclave measures, so that the host cannot widen it. The
// host still decides where a connection really leads, and reads it: TLS, with the
// name verified, is the business of whoever dials. Package egressproxy does that
// for apps that speak plain HTTP.
//
//	app ── SOCKS5 ─────────┐
//	app ── HTTP CONNECT ───┤                    ┌─ stream: a call on VSOCK ─► host
//	egressproxy ───────────┼─ Dialer ─ Policy ──┤
//	sidecar ── DialContext ┘                    └─ link: the kernel's TCP, through tap0
//
// What an app sends through tap0 by itself does not come by here: an enclave whose
// egress is to be governed by its own policy alone runs with --link off.
package egress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/corridor-enclave/corridor/tapstack/sometimes"
	"github.com/corridor-enclave/corridor/tapstack/stream"
)

const (
	// DialTimeout is how long a destination may take to accept a connection.
	DialTimeout = 10 * time.Second
	// replyGrace is how much longer the host may take to say so.
	replyGrace = 5 * time.Second
	// DefaultMaxConns bounds the connections that are open at a time.
	DefaultMaxConns = 4096
)

var (
	// ErrDenied reports a destination that the enclave's own policy refuses. It
	// will be refused again.
	ErrDenied = errors.New("egress: denied by the enclave's policy")
	// ErrCrowded reports that as many connections are open as may be. Later there
	// may be room.
	ErrCrowded = errors.New("egress: too many connections")
)

// A HostError is the host's refusal of a call.
type HostError struct {
	Status stream.Status // never stream.Connected
	Reason string        // the host's own words, printable
}

// Error says what the host said.
func (e *HostError) Error() string {
	return fmt.Sprintf("egress: the host says %s (%s)", e.Status, e.Reason)
}

// Is reports errors of the kernel that mean the same, so that callers need not
// know by which road a connection was to go.
func (e *HostError) Is(target error) bool {
	switch e.Status {
	case stream.Refused:
		return target == syscall.ECONNREFUSED
	case stream.Unreachable:
		return target == syscall.EHOSTUNREACH
	}
	return false
}

// Timeout is for net.Error.
func (e *HostError) Timeout() bool { return e.Status == stream.TooSlow }

// Temporary is for net.Error.
func (e *HostError) Temporary() bool {
	return e.Status == stream.Crowded || e.Status == stream.NoResolver
}

// Config says how the outside is reached.
type Config struct {
	// Policy is what may be.
	Policy Policy
	// Call opens a stream to the host, on which a call is made; nil means that
	// connections go by the link.
	Call func(context.Context) (net.Conn, error)
	// MaxConns bounds the connections; 0 is DefaultMaxConns.
	MaxConns int
	// Log gets, now and then, what was refused. It must not be nil.
	Log *slog.Logger
}

// A Dialer connects to the outside. It is safe for concurrent use.
type Dialer struct {
	cfg       Config
	tcp       net.Dialer
	denials   sometimes.Logger
	lingering sync.WaitGroup

	open                               atomic.Int64
	connected, denied, crowded, failed atomic.Uint64
}

// Counts are numbers since the start, but for Open.
type Counts struct {
	Open      int64
	Connected uint64
	Denied    uint64 // by the enclave's policy
	Crowded   uint64 // beyond MaxConns
	Failed    uint64 // by the host or the network
}

// New returns a Dialer.
func New(cfg Config) *Dialer {
	if cfg.MaxConns == 0 {
		cfg.MaxConns = DefaultMaxConns
	}
	d := &Dialer{cfg: cfg, denials: sometimes.Logger{Log: cfg.Log.With("part", "egress")}}
	d.tcp = net.Dialer{Timeout: DialTimeout, ControlContext: refuseOwn}
	return d
}

// Counts returns the numbers so far.
func (d *Dialer) Counts() Counts {
	return Counts{
		Open: d.open.Load(), Connected: d.connected.Load(), Denied: d.denied.Load(),
		Crowded: d.crowded.Load(), Failed: d.failed.Load(),
	}
}

// Wait returns when no connection that was closed lingers any more, which takes
// two seconds at the most. It is called when no more will be closed.
func (d *Dialer) Wait() { d.lingering.Wait() }

// DialContext connects to an address HOST:PORT, as net.Dialer does; network is
// "tcp". The error is a *net.OpError of a dial around ErrDenied, ErrCrowded, a
// *HostError, or what the kernel said.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	to, err := d.parse(network, address)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	conn, err := d.dial(ctx, to)
	if err != nil {
		return nil, err
	}
	if _, isTCP := conn.connection.(*net.TCPConn); isTCP {
		return conn, nil // its Close is an end already
	}
	return stream.Linger(conn, &d.lingering), nil
}

func (d *Dialer) parse(network, address string) (Destination, error) {
	if network != "tcp" && network != "tcp4" && network != "tcp6" {
		return Destination{}, net.UnknownNetworkError(network)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return Destination{}, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return Destination{}, fmt.Errorf("egress: %q is no port", port)
	}
	return ParseDestination(host, uint16(n))
}

// A connection has an end of its own for each direction: a stream or TCP.
type connection interface {
	net.Conn
	CloseWrite() error
}

// dial connects, if that is allowed and there is room. Closing what it returns is
// a reset unless both directions have ended.
func (d *Dialer) dial(ctx context.Context, to Destination) (*counted, error) {
	if why := d.cfg.Policy.Refuses(to); why != "" {
		d.denied.Add(1)
		d.denials.Warn("connection refused by the policy", "to", to.String(), "why", why)
		return nil, dialError(to, fmt.Errorf("%w: %s: %s", ErrDenied, to, why))
	}
	if d.open.Add(1) > int64(d.cfg.MaxConns) {
		d.open.Add(-1)
		d.crowded.Add(1)
		return nil, dialError(to, ErrCrowded)
	}
	conn, err := d.reach(ctx, to)
	if err != nil {
		d.open.Add(-1)
		d.failed.Add(1)
		return nil, dialError(to, err)
	}
	d.connected.Add(1)
	return &counted{connection: conn, left: sync.OnceFunc(func() { d.open.Add(-1) })}, nil
}

func dialError(to Destination, err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return err
	}
	return &net.OpError{Op: "dial", Net: "tcp", Addr: remote(to), Err: err}
}

func (d *Dialer) reach(ctx context.Context, to Destination) (connection, error) {
	ctx, cancel := context.WithTimeout(ctx, DialTimeout+replyGrace)
	defer cancel()
	if d.cfg.Call != nil {
		return d.call(ctx, to)
	}
	conn, err := d.tcp.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil // of network tcp
}

// refuseOwn looks at what a name was resolved to: the resolver is the host, and
// must not be able to lead a connection back into the enclave.
func refuseOwn(_ context.Context, _, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	why := never(to.Addr())
	if why == "" && isOwn(to.Addr()) {
		why = "it is this enclave itself"
	}
	if why != "" {
		return fmt.Errorf("%w: the name leads to %s: %s", ErrDenied, to.Addr(), why)
	}
	return nil
}

// isOwn reports whether an address is one of this machine's.
func isOwn(addr netip.Addr) bool {
	own, err := net.InterfaceAddrs()
	return err != nil || slices.ContainsFunc(own, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		return ok && n.IP.Equal(addr.AsSlice())
	})
}

// call has the host connect.
func (d *Dialer) call(ctx context.Context, to Destination) (connection, error) {
	call := to.call()
	call.Patience = DialTimeout
	if deadline, ok := ctx.Deadline(); ok {
		call.Patience = min(call.Patience, max(time.Until(deadline), time.Millisecond))
	}
	record, err := call.Append(nil)
	if err != nil {
		return nil, err
	}
	conn, err := d.cfg.Call(ctx)
	if err != nil {
		return nil, fmt.Errorf("egress: call the host: %w", err)
	}
	s := stream.New(conn)
	stop := context.AfterFunc(ctx, func() { _ = s.SetDeadline(time.Unix(1, 0)) })
	reply, err := converse(s, record)
	if !stop() {
		err = context.Cause(ctx)
	}
	if err == nil && reply.Status != stream.Connected {
		err = &HostError{Status: reply.Status, Reason: reply.Reason}
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return &called{Conn: s, remote: remote(to)}, nil
}

func converse(s *stream.Conn, record []byte) (stream.Reply, error) {
	// A host without room replies and closes before it has read the call, so a
	// failure to write is worth less than a reply.
	_, werr := s.Write(record)
	reply, err := stream.ReadReply(s)
	if err != nil && werr != nil {
		return stream.Reply{}, fmt.Errorf("egress: call the host: %w", werr)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		err = fmt.Errorf("the host ended the stream: %w", io.ErrUnexpectedEOF)
	}
	if err != nil {
		return stream.Reply{}, fmt.Errorf("egress: hear the host's reply: %w", err)
	}
	return reply, nil
}

// An address is a destination as net.Addr: a name, if it was called by one.
type address string

func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }

func remote(to Destination) net.Addr {
	if to.Addr.IsValid() {
		return net.TCPAddrFromAddrPort(netip.AddrPortFrom(to.Addr, to.Port))
	}
	return address(to.String())
}

// A called connection is a stream whose peer is the destination.
type called struct {
	*stream.Conn
	remote net.Addr
}

// RemoteAddr is where the call was to, not the host.
func (c *called) RemoteAddr() net.Addr { return c.remote }
