package netstack_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/netstack"
	"github.com/corridor-enclave/corridor/tapstack/netstack/netstacktest"
)

// patience bounds what must happen; nothing waits for it to pass.
const patience = 20 * time.Second

// A world is a Stack and an enclave, connected.
type world struct {
	t        *testing.T
	ctx      context.Context
	stack    *netstack.Stack
	enclave  *netstacktest.Enclave
	peer     netstack.Peer
	attached sync.WaitGroup
	hostEnd  net.Conn
	ended    chan error // results of Attach, in order
}

func newWorld(t *testing.T, c netstack.Config) *world {
	t.Helper()
	s, err := netstack.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	w := &world{t: t, ctx: ctx, stack: s, enclave: netstacktest.NewEnclave(t), peer: plainPeer(), ended: make(chan error, 8)}
	w.peer.Takes.IPv6 = c.IPv6
	t.Cleanup(func() {
		cancel()
		s.Close()
		w.attached.Wait()
	})
	w.connect()
	return w
}

// connect attaches a new stream, and returns when it is attached: the next one is
// to replace it, and not the other way round.
func (w *world) connect() {
	host, enclave := socketPair(w.t)
	w.hostEnd = host
	before := w.stack.Stats().Streams
	w.attached.Go(func() { w.ended <- w.stack.Attach(w.ctx, host, w.peer) })
	w.attached.Go(func() { w.enclave.Carry(enclave) })
	for w.stack.Stats().Streams == before && w.ctx.Err() == nil {
		runtime.Gosched()
	}
}

// socketPair is a stream with buffers, as VSOCK has; net.Pipe has none.
func socketPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

// plainPeer is an enclave that says nothing about itself.
func plainPeer() netstack.Peer { return netstack.Peer{Takes: tapstack.PlainPeer()} }

func outside(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr("198.51.100.7"), port)
}

func inEnclave(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(tapstack.EnclaveAddr(), port)
}

// echo accepts the flow and sends back what comes.
func echo(f *netstack.TCPFlow) {
	conn, err := f.Accept()
	if err != nil {
		return
	}
	defer conn.Close()
	if _, err := io.Copy(conn, conn); err == nil {
		conn.CloseWrite()
	}
}

func TestNewRefusesMTU(t *testing.T) {
	t.Parallel()
	for _, mtu := range []int{-1, 67, 65522} {
		if s, err := netstack.New(netstack.Config{MTU: mtu}); err == nil {
			s.Close()
			t.Errorf("New with MTU %d succeeded", mtu)
		}
	}
}

func TestEnclaveFlowIsRefusedUnlessAccepted(t *testing.T) {
	t.Parallel()
	for name, handler := range map[string]func(*netstack.TCPFlow){
		"no handler":      nil,
		"handler rejects": func(f *netstack.TCPFlow) { f.Reject(); f.Reject() },
		"handler forgets": func(*netstack.TCPFlow) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, netstack.Config{TCP: handler})
			_, err := w.enclave.DialTCP(w.ctx, outside(80))
			if err == nil || w.ctx.Err() != nil {
				t.Fatalf("dial = %v, want refused at once", err)
			}
		})
	}
}

func TestEnclaveFlowCarriesEveryByte(t *testing.T) {
	t.Parallel()
	seen := make(chan netip.AddrPort, 1)
	w := newWorld(t, netstack.Config{TCP: func(f *netstack.TCPFlow) {
		seen <- f.Destination
		echo(f)
	}})
	conn, err := w.enclave.DialTCP(w.ctx, outside(80))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := <-seen; got != outside(80) {
		t.Errorf("the handler saw destination %s, want %s", got, outside(80))
	}
	sent := bytes.Repeat([]byte("corridor"), 1<<18) // 2 MiB
	var sending sync.WaitGroup
	sending.Go(func() {
		if _, err := conn.Write(sent); err != nil {
			t.Errorf("write: %v", err)
		}
		conn.CloseWrite()
	})
	got, err := io.ReadAll(conn)
	sending.Wait()
	if err != nil || sha256.Sum256(got) != sha256.Sum256(sent) {
		t.Fatalf("got %d bytes back, %v; want the %d that were sent", len(got), err, len(sent))
	}
	stats := w.stack.Stats()
	if stats.UplinkBytes < uint64(len(sent)) || stats.DownlinkBytes < uint64(len(sent)) {
		t.Errorf("stats count %+v, less than was sent", stats)
	}
	if stats.Drops != (netstack.Drops{}) {
		t.Errorf("dropped %+v", stats.Drops)
	}
}

func TestDialTCPIntoEnclave(t *testing.T) {
	t.Parallel()
	w := newWorld(t, netstack.Config{})
	l, err := w.enclave.ListenTCP(443)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client := netip.MustParseAddrPort("203.0.113.9:40000")
	for _, tt := range []struct {
		name string
		from netip.AddrPort
		want string
	}{
		{"as the gateway", netip.AddrPort{}, tapstack.GatewayAddr().String()},
		{"as the client", client, client.Addr().String()},
		{"as the client, any port", netip.AddrPortFrom(client.Addr(), 0), client.Addr().String()},
	} {
		conn, err := w.stack.DialTCP(w.ctx, tt.from, inEnclave(443))
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		inside, err := l.Accept()
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		host, _, _ := net.SplitHostPort(inside.RemoteAddr().String())
		if host != tt.want {
			t.Errorf("%s: the enclave sees %s, want %s", tt.name, host, tt.want)
		}
		inside.Close()
		conn.Close()
	}
}

func TestDialTCPErrors(t *testing.T) {
	t.Parallel()
	w := newWorld(t, netstack.Config{})
	if _, err := w.stack.DialTCP(w.ctx, netip.AddrPort{}, inEnclave(1)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial of a closed port = %v, want ECONNREFUSED", err)
	}
	ended, cancel := context.WithCancel(w.ctx)
	cancel()
	if _, err := w.stack.DialTCP(ended, netip.AddrPort{}, inEnclave(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("dial with an ended context = %v, want context.Canceled", err)
	}
	w.stack.Close()
	if _, err := w.stack.DialTCP(w.ctx, netip.AddrPort{}, inEnclave(1)); !errors.Is(err, netstack.ErrClosed) {
		t.Errorf("dial after Close = %v, want ErrClosed", err)
	}
	if err := w.stack.Attach(w.ctx, w.hostEnd, plainPeer()); !errors.Is(err, netstack.ErrClosed) {
		t.Errorf("Attach after Close = %v, want ErrClosed", err)
	}
}

func TestResetIsAResetOnBothSides(t *testing.T) {
	t.Parallel()
	accepted := make(chan *netstack.Conn, 2)
	w := newWorld(t, netstack.Config{TCP: func(f *netstack.TCPFlow) {
		conn, err := f.Accept()
		if err != nil {
			t.Errorf("accept: %v", err)
		}
		accepted <- conn
	}})
	inside, err := w.enclave.DialTCP(w.ctx, outside(80))
	if err != nil {
		t.Fatal(err)
	}
	conn := <-accepted
	if err := conn.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if n, err := inside.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("after a reset the enclave reads %d, %v; want an error that is not EOF", n, err)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after Close = %v, want net.ErrClosed", err)
	}
	if err := conn.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second Close = %v, want net.ErrClosed", err)
	}
}

func TestListeners(t *testing.T) {
	t.Parallel()
	w := newWorld(t, netstack.Config{})
	l, err := w.stack.ListenTCP(80)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.stack.ListenTCP(80); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("second ListenTCP = %v, want EADDRINUSE", err)
	}
	conn, err := w.enclave.DialTCP(w.ctx, netip.AddrPortFrom(tapstack.GatewayAddr(), 80))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	var waiting sync.WaitGroup
	waiting.Go(func() {
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept during Close = %v, want net.ErrClosed", err)
		}
	})
	l.Close()
	waiting.Wait()
}

func TestListenUDP(t *testing.T) {
	t.Parallel()
	w := newWorld(t, netstack.Config{})
	pc, err := w.stack.ListenUDP(53)
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	inside, err := w.enclave.DialUDP(netip.AddrPortFrom(tapstack.GatewayAddr(), 53))
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	if _, err := inside.Write([]byte("question")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	n, from, err := pc.ReadFrom(buf)
	if err != nil || string(buf[:n]) != "question" {
		t.Fatalf("the host got %q, %v", buf[:n], err)
	}
	if _, err := pc.WriteTo([]byte("answer"), from); err != nil {
		t.Fatal(err)
	}
	if n, err = inside.Read(buf); err != nil || string(buf[:n]) != "answer" {
		t.Fatalf("the enclave got %q, %v", buf[:n], err)
	}
}

func TestUDPFlow(t *testing.T) {
	t.Parallel()
	accepted := make(chan net.Conn, 1)
	w := newWorld(t, netstack.Config{UDP: func(f *netstack.UDPFlow) {
		if f.Destination != outside(123) {
			return // answered with port unreachable
		}
		conn, err := f.Accept()
		if err != nil {
			t.Errorf("accept: %v", err)
		}
		if _, err := f.Accept(); !errors.Is(err, netstack.ErrDecided) {
			t.Errorf("second Accept = %v, want ErrDecided", err)
		}
		accepted <- conn
	}})
	inside, err := w.enclave.DialUDP(outside(123))
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	if _, err := inside.Write([]byte("tick")); err != nil {
		t.Fatal(err)
	}
	conn := <-accepted
	defer conn.Close()
	buf := make([]byte, 16)
	if n, err := conn.Read(buf); err != nil || string(buf[:n]) != "tick" {
		t.Fatalf("the handler got %q, %v: the first datagram is part of the flow", buf[:n], err)
	}
	if err := w.enclave.SendUnreachable(w.ctx, outside(9)); err == nil || w.ctx.Err() != nil {
		t.Fatalf("a flow that the handler left = %v, want port unreachable", err)
	}
}

func TestFlowSurvivesTheLossOfTheStream(t *testing.T) {
	t.Parallel()
	w := newWorld(t, netstack.Config{TCP: echo})
	conn, err := w.enclave.DialTCP(w.ctx, outside(80))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	say := func(text string) {
		t.Helper()
		if _, err := conn.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(text))
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != text {
			t.Fatalf("echo = %q, %v; want %q", got, err, text)
		}
	}
	say("before")
	w.hostEnd.Close()
	if err := <-w.ended; err == nil || errors.Is(err, netstack.ErrReplaced) {
		t.Errorf("Attach after a cut = %v, want the cause", err)
	}
	if w.stack.Attached() {
		t.Error("Attached after a cut")
	}
	w.connect()
	say("after the loss")
	w.connect()
	if err := <-w.ended; !errors.Is(err, netstack.ErrReplaced) {
		t.Errorf("Attach that was replaced = %v, want ErrReplaced", err)
	}
	say("after the replacement")
	if got := w.stack.Stats().Streams; got != 3 {
		t.Errorf("%d streams counted, want 3", got)
	}
}

func TestAttachEndsWithItsContext(t *testing.T) {
	t.Parallel()
	w := newWorld(t, netstack.Config{})
	ctx, cancel := context.WithCancel(w.ctx)
	host, enclave := socketPair(t)
	defer enclave.Close()
	ended := make(chan error, 1)
	w.attached.Go(func() { ended <- w.stack.Attach(ctx, host, plainPeer()) })
	<-w.ended // the first stream, replaced
	cancel()
	if err := <-ended; err != nil {
		t.Fatalf("Attach = %v after its context ended, want nil", err)
	}
}

func TestCloseEndsEverything(t *testing.T) {
	t.Parallel()
	started := make(chan struct{})
	w := newWorld(t, netstack.Config{TCP: func(f *netstack.TCPFlow) {
		conn, err := f.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		close(started)
		io.Copy(io.Discard, conn) // ends by Close alone
	}})
	conn, err := w.enclave.DialTCP(w.ctx, outside(80))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	<-started
	w.stack.Close()
	w.stack.Close()
	if err := <-w.ended; !errors.Is(err, netstack.ErrClosed) {
		t.Errorf("Attach = %v after Close, want ErrClosed", err)
	}
}

// TestFlowsThatHangHoldUpNobody: a stock host has room for ten connections that
// are being made, and drops the eleventh.
func TestFlowsThatHangHoldUpNobody(t *testing.T) {
	t.Parallel()
	const hanging = 200
	waiting, answer := make(chan struct{}), make(chan struct{})
	w := newWorld(t, netstack.Config{TCP: func(f *netstack.TCPFlow) {
		if f.Destination == outside(81) {
			select {
			case waiting <- struct{}{}:
			case <-answer: // a SYN that was sent again, and came when the flow was rejected
			}
			<-answer
			return // rejected
		}
		echo(f)
	}})
	var dials sync.WaitGroup
	for range hanging {
		dials.Go(func() {
			if conn, err := w.enclave.DialTCP(w.ctx, outside(81)); err == nil {
				conn.Close()
				t.Error("a rejected flow was connected")
			}
		})
	}
	for range hanging {
		<-waiting
	}
	conn, err := w.enclave.DialTCP(w.ctx, outside(80))
	if err != nil {
		t.Fatalf("dial behind %d that hang: %v", hanging, err)
	}
	conn.Close()
	close(answer)
	dials.Wait()
}
