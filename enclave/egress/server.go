package egress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/corridor-enclave/corridor/tapstack/pacing"
	"github.com/corridor-enclave/corridor/tapstack/relay"
	"github.com/corridor-enclave/corridor/tapstack/sometimes"
)

const (
	// requestTimeout bounds what a client says before it is connected.
	requestTimeout = 10 * time.Second
	// answerTimeout bounds the writing of an answer, and of what the client had
	// sent ahead.
	answerTimeout = 10 * time.Second
	// farewellTimeout is how long a client that was refused may take to go.
	farewellTimeout = time.Second
	// maxClients bounds the clients of one listener, connected or not.
	maxClients = 4096
)

// A protocol is how a client says where to.
type protocol interface {
	// hear reads one request, answers it if it is refused for itself, and returns
	// what was read behind it.
	hear(net.Conn) (to Destination, behind []byte, err error)
	// answer tells the client how its request ended; nil is that it is connected.
	answer(net.Conn, error) error
}

// A Server lets programs inside the enclave out, each client by one connection:
//
//	         too many           no request, a wrong one, a slow one
//	accepted ────────► closed ◄───────────────────────────────── hearing
//	   │                  ▲ refused, or not reached                 │ request
//	   └──────────────────┴────────────────────────── dialing ◄─────┘
//	                      │ either side ended            │ connected
//	                      └────────── relaying ◄─────────┘
//
// Make one with NewSOCKS or NewCONNECT.
type Server struct {
	name     string
	listener net.Listener
	protocol protocol
	dialer   *Dialer
	log      *slog.Logger
	loose    sometimes.Logger
	slots    chan struct{}
}

// NewSOCKS serves SOCKS5 on the listener, which is closed when Run ends. The
// listener must not be reachable from outside: clients are not asked who they are.
func NewSOCKS(l net.Listener, d *Dialer, log *slog.Logger) *Server {
	return newServer("SOCKS", l, socks{}, d, log)
}

// NewCONNECT serves HTTP CONNECT on the listener, in the same way.
func NewCONNECT(l net.Listener, d *Dialer, log *slog.Logger) *Server {
	return newServer("HTTP CONNECT", l, connect{}, d, log)
}

func newServer(name string, l net.Listener, p protocol, d *Dialer, log *slog.Logger) *Server {
	log = log.With("part", name)
	return &Server{
		name: name, listener: l, protocol: p, dialer: d, log: log,
		loose: sometimes.Logger{Log: log}, slots: make(chan struct{}, maxClients),
	}
}

// Run serves until ctx ends, which resets all connections: whoever uses them is
// asked to stop before. It fails if the listener does.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { s.listener.Close() })
	defer stop()
	s.log.Info("listening", "addr", s.listener.Addr().String())
	var clients sync.WaitGroup
	defer clients.Wait()
	defer cancel() // before clients are waited for
	for {
		conn, err := s.listener.Accept()
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("egress: accept clients of %s: %w", s.name, err)
		default:
			s.loose.Warn("client not accepted", "error", err)
			pacing.Pause(ctx.Done(), pacing.Accept)
			continue
		}
		select {
		case s.slots <- struct{}{}:
		default:
			s.loose.Warn("client refused", "why", "too many clients")
			conn.Close()
			continue
		}
		clients.Go(func() {
			defer func() { <-s.slots }()
			s.serve(ctx, conn)
		})
	}
}

// serve carries one client to its end.
func (s *Server) serve(ctx context.Context, client net.Conn) {
	outside, err := s.open(ctx, client)
	if err != nil {
		if !errors.Is(err, io.EOF) && ctx.Err() == nil { // one that said nothing wanted nothing
			s.log.Debug("client not connected", "error", err)
		}
		closeHeard(client)
		return
	}
	result, err := relay.Relay(ctx, client, outside, relay.Options{})
	s.log.Debug("connection ended", "to", outside.RemoteAddr().String(), "uplink_bytes", result.AToB, "downlink_bytes", result.BToA, "err", err)
}

// closeHeard closes a client such that it can read its answer: what it still
// sends would otherwise be answered with a reset, which overtakes.
func closeHeard(client net.Conn) {
	defer client.Close()
	half, ok := client.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil || client.SetReadDeadline(time.Now().Add(farewellTimeout)) != nil {
		return
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(client, maxHead)) // neither matters to anybody
}

// open hears where the client wants to, connects, and says so.
func (s *Server) open(ctx context.Context, client net.Conn) (*counted, error) {
	if err := client.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { client.Close() })
	defer stop()
	to, behind, err := s.protocol.hear(client)
	if err != nil {
		return nil, err
	}
	outside, err := s.dialer.dial(ctx, to)
	if derr := client.SetDeadline(time.Now().Add(answerTimeout)); derr != nil && err == nil {
		err = derr
	}
	if aerr := s.protocol.answer(client, err); err == nil {
		err = aerr
	}
	if err == nil {
		err = sendAhead(outside, behind)
	}
	if err == nil {
		err = client.SetDeadline(time.Time{})
	}
	if err != nil {
		if outside != nil {
			_ = outside.Reset() // the error that matters is the one before
		}
		return nil, err
	}
	return outside, nil
}

// sendAhead passes on what the client said before it was answered.
func sendAhead(outside net.Conn, behind []byte) error {
	if len(behind) == 0 {
		return nil
	}
	if err := outside.SetWriteDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	if _, err := outside.Write(behind); err != nil {
		return err
	}
	return outside.SetWriteDeadline(time.Time{})
}
