package netstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// A Conn is a TCP connection with the enclave. It is a net.Conn with CloseRead,
// CloseWrite and SetLinger, whose errors are those of a socket: a reset is
// syscall.ECONNRESET, a use after Close net.ErrClosed.
type Conn struct {
	*gonet.TCPConn
	ep     tcpip.Endpoint
	closed atomic.Bool
}

func newConn(wq *waiter.Queue, ep tcpip.Endpoint) *Conn {
	ep.SocketOptions().SetKeepAlive(true)
	idle := tcpip.KeepaliveIdleOption(keepAliveIdle)
	// The stack takes this option for every TCP endpoint.
	_ = ep.SetSockOpt(&idle)
	return &Conn{TCPConn: gonet.NewTCPConn(wq, ep), ep: ep}
}

// Read reads what the enclave sent. It returns io.EOF only when the enclave
// closed its side in order.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	return n, c.translate(err)
}

// Write queues b for the enclave. It waits while the enclave takes no more.
func (c *Conn) Write(b []byte) (int, error) {
	n, err := c.TCPConn.Write(b)
	return n, c.translate(err)
}

// Close closes the connection in order, or with a reset after SetLinger(0). Read
// and Write return, also if they are waiting.
func (c *Conn) Close() error {
	if c.closed.Swap(true) {
		return net.ErrClosed
	}
	// Closing alone does not wake a Write that waits for the enclave to take more.
	_ = c.TCPConn.SetDeadline(time.Unix(1, 0))
	return c.TCPConn.Close()
}

// SetLinger sets what Close does with data that was not sent, as
// net.TCPConn.SetLinger: 0 drops it and resets the connection.
func (c *Conn) SetLinger(sec int) error {
	c.ep.SocketOptions().SetLinger(tcpip.LingerOption{Enabled: sec >= 0, Timeout: time.Duration(max(sec, 0)) * time.Second})
	return nil
}

// translate gives the stack's errors the identity that callers test for.
func (c *Conn) translate(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	if c.closed.Load() {
		return net.ErrClosed
	}
	var op *net.OpError
	if !errors.As(err, &op) {
		return err
	}
	if op.Timeout() {
		op.Err = os.ErrDeadlineExceeded
		return op
	}
	op.Err = errnoOf(op.Err.Error())
	return op
}

// errnoOf turns the text of a stack error into the error of a socket. The
// adapters of the stack keep only the text.
func errnoOf(text string) error {
	switch text {
	case (&tcpip.ErrConnectionReset{}).String():
		return syscall.ECONNRESET
	case (&tcpip.ErrConnectionAborted{}).String(), (&tcpip.ErrAborted{}).String():
		return syscall.ECONNABORTED
	case (&tcpip.ErrConnectionRefused{}).String():
		return syscall.ECONNREFUSED
	case (&tcpip.ErrClosedForSend{}).String():
		return syscall.EPIPE
	case (&tcpip.ErrTimeout{}).String():
		return syscall.ETIMEDOUT
	case (&tcpip.ErrHostUnreachable{}).String():
		return syscall.EHOSTUNREACH
	case (&tcpip.ErrNetworkUnreachable{}).String():
		return syscall.ENETUNREACH
	case (&tcpip.ErrPortInUse{}).String(), (&tcpip.ErrNoPortAvailable{}).String():
		return syscall.EADDRINUSE
	}
	return errors.New(text)
}

// A DatagramConn is the host's end of a UDP flow. It is a net.Conn, of which each
// Read and Write is one datagram.
type DatagramConn struct {
	*gonet.UDPConn
	ep    tcpip.Endpoint
	entry waiter.Entry
	ready <-chan struct{}
}

func newDatagramConn(wq *waiter.Queue, ep tcpip.Endpoint) *DatagramConn {
	c := &DatagramConn{UDPConn: gonet.NewUDPConn(wq, ep), ep: ep}
	c.entry, c.ready = waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventErr)
	wq.EventRegister(&c.entry)
	return c
}

// AwaitReadable returns when Read would not wait: for a datagram, an error or Close.
// Who reads need not hold a buffer meanwhile. One goroutine may call it.
func (c *DatagramConn) AwaitReadable() {
	const events = waiter.ReadableEvents | waiter.EventErr
	for c.ep.Readiness(events)&events == 0 {
		<-c.ready
	}
}

// DialTCP connects to a port of the enclave. from is the address that the
// enclave sees; the zero value is the gateway's, with any port, and port 0 is any
// port of the address. An address in use is syscall.EADDRINUSE. ctx bounds the
// attempt, not the connection; while no stream is attached the attempt waits.
func (s *Stack) DialTCP(ctx context.Context, from, to netip.AddrPort) (*Conn, error) {
	conn, err := s.dialTCP(ctx, from, to)
	if err != nil {
		return nil, fmt.Errorf("netstack: dial %s: %w", to, err)
	}
	return conn, nil
}

func (s *Stack) dialTCP(ctx context.Context, from, to netip.AddrPort) (*Conn, error) {
	if s.isClosed() {
		return nil, ErrClosed
	}
	var wq waiter.Queue
	ep, err := s.stack.NewEndpoint(tcp.ProtocolNumber, networkOf(to.Addr()), &wq)
	if err != nil {
		return nil, errnoOf(err.String())
	}
	entry, ready := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventErr | waiter.EventHUp)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	if from.IsValid() {
		if err := ep.Bind(fullAddress(from)); err != nil {
			ep.Close()
			return nil, errnoOf(err.String())
		}
	}
	s.askForEnclave()
	err = ep.Connect(fullAddress(to))
	if _, ok := err.(*tcpip.ErrConnectStarted); ok {
		select {
		case <-ctx.Done():
			ep.Close()
			return nil, context.Cause(ctx)
		case <-ready:
		}
		err = ep.LastError()
	}
	if err != nil {
		ep.Close()
		return nil, errnoOf(err.String())
	}
	return newConn(&wq, ep), nil
}

func fullAddress(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nicID, Addr: stackAddr(a.Addr()), Port: a.Port()}
}
