package netstack

import (
	"bytes"
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
// syscall.ECONNRESET, a use after Close net.ErrClosed. Reading and writing allocate
// nothing beside what the stack below does.
type Conn struct {
	ep            tcpip.Endpoint
	reads, writes side
	closed        atomic.Bool
	into          tcpip.SliceWriter // of the Read under way
	from          bytes.Reader      // of the Write under way
	filling       filling           // of the Fill under way
}

func newConn(wq *waiter.Queue, ep tcpip.Endpoint) *Conn {
	ep.SocketOptions().SetKeepAlive(true)
	idle := tcpip.KeepaliveIdleOption(keepAliveIdle)
	// The stack takes this option for every TCP endpoint.
	_ = ep.SetSockOpt(&idle)
	c := &Conn{ep: ep}
	c.reads.register(wq, waiter.ReadableEvents)
	c.writes.register(wq, waiter.WritableEvents)
	return c
}

// Read reads what the enclave sent. It returns io.EOF only when the enclave
// closed its side in order.
func (c *Conn) Read(b []byte) (int, error) {
	c.reads.mu.Lock()
	defer c.reads.mu.Unlock()
	defer func() { c.into = nil }()
	for !isDone(c.reads.deadline.over()) {
		c.into = b
		n, came, err := c.readTo(&c.into)
		if came {
			return n, err
		}
		c.reads.wait()
	}
	return 0, c.failed("read", os.ErrDeadlineExceeded)
}

// readTo reads what is there. came is false if that is nothing, not even the end. The
// error is io.ErrShortBuffer if to took nothing.
func (c *Conn) readTo(to io.Writer) (n int, came bool, err error) {
	got, failure := c.ep.Read(to, tcpip.ReadOptions{})
	switch failure.(type) {
	case nil:
		return got.Count, true, nil
	case *tcpip.ErrWouldBlock:
		return 0, false, nil
	case *tcpip.ErrClosedForReceive:
		return 0, true, io.EOF
	case *tcpip.ErrBadBuffer:
		return 0, true, io.ErrShortBuffer
	default:
		return 0, true, c.failed("read", errnoOf(failure))
	}
}

// Write queues b for the enclave. It waits while the enclave takes no more.
func (c *Conn) Write(b []byte) (n int, err error) {
	c.writes.mu.Lock()
	defer c.writes.mu.Unlock()
	defer c.from.Reset(nil)
	for !isDone(c.writes.deadline.over()) {
		c.from.Reset(b[n:])
		some, err := c.ep.Write(&c.from, tcpip.WriteOptions{})
		n += int(some)
		if _, full := err.(*tcpip.ErrWouldBlock); err != nil && !full {
			return n, c.failed("write", errnoOf(err))
		}
		if n == len(b) {
			return n, nil
		}
		if err != nil {
			c.writes.wait()
		}
	}
	return n, c.failed("write", os.ErrDeadlineExceeded)
}

// Close closes the connection in order, or with a reset after SetLinger(0). Read
// and Write return, also if they are waiting.
func (c *Conn) Close() error {
	if c.closed.Swap(true) {
		return net.ErrClosed
	}
	// Closing alone does not wake a Write that waits for the enclave to take more.
	_ = c.SetDeadline(time.Unix(1, 0)) // never fails
	c.ep.Close()
	return nil
}

// CloseRead refuses what the enclave still sends.
func (c *Conn) CloseRead() error { return c.shutdown(tcpip.ShutdownRead) }

// CloseWrite tells the enclave that nothing follows.
func (c *Conn) CloseWrite() error { return c.shutdown(tcpip.ShutdownWrite) }

func (c *Conn) shutdown(flags tcpip.ShutdownFlags) error {
	if err := c.ep.Shutdown(flags); err != nil {
		return c.failed("close", errnoOf(err))
	}
	return nil
}

// SetLinger sets what Close does with data that was not sent, as
// net.TCPConn.SetLinger: 0 drops it and resets the connection.
func (c *Conn) SetLinger(sec int) error {
	c.ep.SocketOptions().SetLinger(tcpip.LingerOption{Enabled: sec >= 0, Timeout: time.Duration(max(sec, 0)) * time.Second})
	return nil
}

// SetDeadline sets when Read and Write fail with os.ErrDeadlineExceeded.
func (c *Conn) SetDeadline(t time.Time) error {
	c.reads.deadline.set(t)
	c.writes.deadline.set(t)
	return nil
}

// SetReadDeadline sets when Read fails.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.reads.deadline.set(t)
	return nil
}

// SetWriteDeadline sets when Write fails.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.writes.deadline.set(t)
	return nil
}

// LocalAddr is the address that the enclave sees.
func (c *Conn) LocalAddr() net.Addr { return address(c.ep.GetLocalAddress()) }

// RemoteAddr is the enclave's.
func (c *Conn) RemoteAddr() net.Addr { return address(c.ep.GetRemoteAddress()) }

// address is nil where there is none any more.
func address(a tcpip.FullAddress, err tcpip.Error) net.Addr {
	if err != nil {
		return nil
	}
	return net.TCPAddrFromAddrPort(addrPort(a.Addr, a.Port))
}

// failed gives an error the form of package net, and what failed after Close its
// identity.
func (c *Conn) failed(op string, err error) error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// errnoOf turns an error of the stack into the error of a socket.
func errnoOf(err tcpip.Error) error {
	switch err.(type) {
	case *tcpip.ErrConnectionReset:
		return syscall.ECONNRESET
	case *tcpip.ErrConnectionAborted, *tcpip.ErrAborted:
		return syscall.ECONNABORTED
	case *tcpip.ErrConnectionRefused:
		return syscall.ECONNREFUSED
	case *tcpip.ErrClosedForSend:
		return syscall.EPIPE
	case *tcpip.ErrTimeout:
		return syscall.ETIMEDOUT
	case *tcpip.ErrHostUnreachable:
		return syscall.EHOSTUNREACH
	case *tcpip.ErrNetworkUnreachable:
		return syscall.ENETUNREACH
	case *tcpip.ErrPortInUse, *tcpip.ErrNoPortAvailable:
		return syscall.EADDRINUSE
	}
	return errors.New(err.String())
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
		return nil, errnoOf(err)
	}
	entry, ready := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventErr | waiter.EventHUp)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	if from.IsValid() {
		if err := ep.Bind(fullAddress(from)); err != nil {
			ep.Close()
			return nil, errnoOf(err)
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
		return nil, errnoOf(err)
	}
	return newConn(&wq, ep), nil
}

func fullAddress(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nicID, Addr: stackAddr(a.Addr()), Port: a.Port()}
}
