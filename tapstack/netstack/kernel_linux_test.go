package netstack_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/netstack"
	"github.com/corridor-enclave/corridor/tapstack/tap"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

// A kernelWorld is a Stack and a real kernel as the enclave: a TAP device in a
// network namespace of the test, a Link, and between them a unix socket.
type kernelWorld struct {
	t     *testing.T
	stack *netstack.Stack
	link  *tapstack.Link

	mu   sync.Mutex
	conn net.Conn // the host's end of the last stream
}

// newKernelWorld moves the test's goroutine into its namespace, where it dials
// and listens as the app. Each flow that it opens is given to handle.
func newKernelWorld(t *testing.T, mtu int, plain bool, handle func(*netstack.TCPFlow)) *kernelWorld {
	t.Helper()
	tapstacktest.RequireTAP(t)
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	w := &kernelWorld{t: t}
	if w.stack, err = netstack.New(netstack.Config{MTU: mtu, IPv6: true, TCP: handle}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	server := w.serve(ctx, listener, mtu)

	tapstacktest.PrivateNetwork(t)
	device, err := tap.Open("tap0", tap.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := tap.Configure(tap.Settings{Name: "tap0", MAC: tapstack.EnclaveMAC(), MTU: mtu, GatewayMAC: tapstack.GatewayMAC()}); err != nil {
		t.Fatal(err)
	}
	w.link, err = tapstack.NewLink(tapstack.LinkConfig{
		Device: device, Plain: plain, IPv6: mtu >= 1280, Log: slog.New(slog.DiscardHandler),
		Dial: func(ctx context.Context) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", listener.Addr().String())
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		if err := w.link.Run(ctx); err != nil {
			t.Errorf("link: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		server.Close()
		running.Wait()
		w.stack.Close()
	})
	return w
}

// serve accepts links of either kind.
func (w *kernelWorld) serve(ctx context.Context, l net.Listener, mtu int) *http.Server {
	attach := func(conn net.Conn, p netstack.Peer, err error) {
		if err != nil {
			w.t.Errorf("take the link: %v", err)
			return
		}
		w.mu.Lock()
		w.conn = conn
		w.mu.Unlock()
		_ = w.stack.Attach(ctx, conn, p) // ends with an error whenever the stream is cut
	}
	mux := http.NewServeMux()
	mux.HandleFunc(tapstack.UpgradePath, func(rw http.ResponseWriter, r *http.Request) {
		conn, takes, err := tapstack.Upgrade(rw, r, func(tapstack.Capabilities) (tapstack.Capabilities, error) {
			return tapstack.Capabilities{Offload: true, Ping: true, IPv6: mtu >= 1280, MaxFrame: tapstack.MaxFrame, MTU: mtu}, nil
		})
		attach(conn, netstack.Peer{Framing: tapstack.Extended, Takes: takes}, err)
	})
	mux.HandleFunc(tapstack.ConnectPath, func(rw http.ResponseWriter, r *http.Request) {
		conn, err := tapstack.Hijack(rw, r)
		attach(conn, netstack.Peer{Takes: tapstack.Capabilities{MaxFrame: mtu + tapstack.MinFrame, MTU: mtu}}, err)
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: patience}
	go server.Serve(l)
	return server
}

// cut ends the stream that carries the link now.
func (w *kernelWorld) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conn != nil {
		w.conn.Close()
	}
}

// dial connects as the app does: from the kernel of the namespace.
func (w *kernelWorld) dial() *net.TCPConn {
	w.t.Helper()
	return w.dialTo(outside(80))
}

func (w *kernelWorld) dialTo(to netip.AddrPort) *net.TCPConn {
	w.t.Helper()
	conn, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(to))
	if err != nil {
		w.t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		w.t.Fatal(err)
	}
	return conn
}

// kernelCounter reads one counter of the namespace's TCP (proc_net_netstat(5)).
func kernelCounter(t *testing.T, name string) int {
	t.Helper()
	text, err := os.ReadFile("/proc/thread-self/net/netstat")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		for j, field := range strings.Fields(lines[i]) {
			if field == name {
				n, err := strconv.Atoi(strings.Fields(lines[i+1])[j])
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
		}
	}
	t.Fatalf("the kernel does not count %s", name)
	return 0
}

// swallow reads a flow in small pieces to its end.
func swallow(f *netstack.TCPFlow) {
	conn, err := f.Accept()
	if err != nil {
		return
	}
	defer conn.Close()
	buf := make([]byte, 4<<10)
	for {
		if _, err := conn.Read(buf); err != nil {
			return
		}
	}
}

// TestIntegrationUploadsDoNotStall: with a large MTU and a receive buffer that
// the stack tunes, its window could jump past the point where it would have been
// announced. The kernel then sends nothing for 200 ms, until it probes the window.
// That takes luck, so TestReceiveWindowIsNotTuned looks at the settings too.
func TestIntegrationUploadsDoNotStall(t *testing.T) {
	w := newKernelWorld(t, 65480, false, swallow)
	data := make([]byte, 4<<20)
	for range 40 {
		conn := w.dial()
		if _, err := conn.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := conn.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, conn); err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	if n := kernelCounter(t, "TCPWinProbe"); n != 0 {
		t.Errorf("the kernel had to probe the stack's window %d times, want 0", n)
	}
}

// reflect sends back what comes.
func reflect(f *netstack.TCPFlow) {
	conn, err := f.Accept()
	if err != nil {
		return
	}
	defer conn.Close()
	if _, err := io.Copy(conn, conn); err == nil {
		conn.CloseWrite()
	}
}

// roundTrip sends what source has and compares what comes back.
func roundTrip(conn *net.TCPConn, source io.Reader) (n int64, err error) {
	sent, got := sha256.New(), sha256.New()
	var size int64
	wrote := make(chan error, 1)
	go func() {
		var err error
		size, err = io.Copy(io.MultiWriter(conn, sent), source)
		wrote <- errors.Join(err, conn.CloseWrite())
	}()
	n, err = io.Copy(got, conn)
	if err := errors.Join(err, <-wrote); err != nil {
		return n, err
	}
	if n != size || string(got.Sum(nil)) != string(sent.Sum(nil)) {
		return n, fmt.Errorf("%d bytes came back, of %d and not the same", n, size)
	}
	return n, nil
}

// noise is random bytes by a seed.
func noise(seed uint64) io.Reader {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	return rand.NewChaCha8(key)
}

// TestIntegrationEveryByteArrives: through each kind of link, in both directions
// at once, in large segments and small ones.
func TestIntegrationEveryByteArrives(t *testing.T) {
	for _, tt := range []struct {
		name  string
		mtu   int
		plain bool
	}{{"extended", 1500, false}, {"extended, large MTU", 65480, false}, {"plain", 1500, true}, {"small MTU", 576, false}} {
		t.Run(tt.name, func(t *testing.T) {
			w := newKernelWorld(t, tt.mtu, tt.plain, reflect)
			for _, n := range []int64{1, 1460, 1461, 70_000, 8 << 20} {
				conn := w.dial()
				if got, err := roundTrip(conn, io.LimitReader(noise(uint64(n)), n)); err != nil || got != n {
					t.Errorf("%d bytes: %d, %v", n, got, err)
				}
				conn.Close()
			}
			if got := w.link.Status(); got.Extended == tt.plain || got.Drops != (tapstack.LinkDrops{}) {
				t.Errorf("status of the link: %+v", got)
			}
			if got := w.stack.Stats(); got.Drops.Offload+got.Drops.TooLong+got.Drops.QueueFull != 0 {
				t.Errorf("the host dropped %+v", got.Drops)
			}
		})
	}
}

// TestIntegrationIPv6: a kernel that was given IPv6 sends and receives every byte
// of large segments, and believes no router.
func TestIntegrationIPv6(t *testing.T) {
	w := newKernelWorld(t, 1500, false, reflect)
	if !tap.HasIPv6() {
		tapstacktest.Require(t, errors.New("none"), "a kernel with IPv6", "boot without ipv6.disable=1")
	}
	if err := tap.EnableIPv6("tap0", tapstack.GatewayMAC()); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int64{1, 1441, 8 << 20} {
		conn := w.dialTo(outside6(80))
		if got, err := roundTrip(conn, io.LimitReader(noise(uint64(n)), n)); err != nil || got != n {
			t.Errorf("%d bytes: %d, %v", n, got, err)
		}
		conn.Close()
	}
	if got := w.stack.Stats(); got.Drops.Offload+got.Drops.TooLong+got.Drops.QueueFull != 0 {
		t.Errorf("the host dropped %+v", got.Drops)
	}
}

// TestIntegrationFlowsSurviveCuts cuts the stream 200 ms after each time that it
// came up, under transfers in both directions, and demands every byte of them.
func TestIntegrationFlowsSurviveCuts(t *testing.T) {
	w := newKernelWorld(t, 1500, false, reflect)
	const cuts = 10
	stop := make(chan struct{})
	var transfers sync.WaitGroup
	for i := range uint64(2) {
		conn := w.dial()
		if err := conn.SetDeadline(time.Now().Add(3 * patience)); err != nil {
			t.Fatal(err)
		}
		transfers.Go(func() {
			defer conn.Close()
			if n, err := roundTrip(conn, tapstacktest.Until{Reader: noise(i), Stop: stop}); err != nil || n == 0 {
				t.Errorf("a transfer of %d bytes: %v", n, err)
			}
		})
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for seen := uint64(0); seen < cuts; {
		<-tick.C
		if now := w.link.Status(); now.Connected && now.Connects > seen {
			seen = now.Connects
			w.cut()
		}
	}
	close(stop)
	transfers.Wait()
	if got := w.link.Status(); got.Reconnects < cuts-1 {
		t.Errorf("status is %+v, want at least %d reconnects", got, cuts-1)
	}
}
