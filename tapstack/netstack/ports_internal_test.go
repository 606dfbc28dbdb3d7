package netstack

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/netstack/netstacktest"
)

// TestPortsComeBack: the stack connects more often than it has ports, and closes
// first, which leaves each of them in TIME_WAIT. With the minute that is usual, a
// stock host has used its ports up after 49,536 connections, and connects to
// nobody for the rest of that minute; here ports come back after a second. A small
// range stands for many connections.
func TestPortsComeBack(t *testing.T) {
	t.Parallel()
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	const first, ports, connections = 40000, 16, 40
	if err := s.stack.SetPortRange(first, first+ports-1); err != nil {
		t.Fatal(err)
	}
	host, enclave := net.Pipe()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	var running sync.WaitGroup
	e := netstacktest.NewEnclave(t)
	running.Go(func() { s.Attach(ctx, host, Peer{Takes: tapstack.PlainPeer()}) })
	running.Go(func() { e.Carry(enclave) })
	l, listenErr := e.ListenTCP(80)
	if listenErr != nil {
		t.Fatal(listenErr)
	}
	running.Go(func() { closeSecond(l) })
	defer func() {
		cancel()
		l.Close()
		s.Close()
		running.Wait()
	}()
	waited := 0
	for range connections {
		conn, err := s.DialTCP(ctx, netip.AddrPort{}, netip.AddrPortFrom(tapstack.EnclaveAddr(), 80))
		for ; errors.Is(err, syscall.EADDRINUSE) && ctx.Err() == nil; waited++ {
			<-time.After(20 * time.Millisecond)
			conn, err = s.DialTCP(ctx, netip.AddrPort{}, netip.AddrPortFrom(tapstack.EnclaveAddr(), 80))
		}
		if err != nil {
			t.Fatalf("connect: %v", err)
		}
		if err := conn.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, conn); err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	if waited == 0 {
		t.Errorf("%d connections took none of %d ports twice: the test shows nothing", connections, ports)
	}
}

// closeSecond closes each connection when its other end has closed.
func closeSecond(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, conn) // a reset is an end too
		conn.Close()
	}
}

// TestReceiveWindowIsNotTuned: a window that the stack grows by itself can stall a
// sender for 200 ms, which a test of traffic meets only now and then.
func TestReceiveWindowIsNotTuned(t *testing.T) {
	t.Parallel()
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var size tcpip.TCPReceiveBufferSizeRangeOption
	if err := s.stack.TransportProtocolOption(tcp.ProtocolNumber, &size); err != nil || size.Default != size.Max {
		t.Errorf("receive buffers are %+v, %v; want the default to be the largest", size, err)
	}
	var tuned tcpip.TCPModerateReceiveBufferOption
	if err := s.stack.TransportProtocolOption(tcp.ProtocolNumber, &tuned); err != nil || tuned {
		t.Errorf("the window is tuned: %t, %v", tuned, err)
	}
}
