package gateway_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"

	"github.com/corridor-enclave/corridor/host/gateway"
	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/netstack"
	"github.com/corridor-enclave/corridor/tapstack/simvsock"
	"github.com/corridor-enclave/corridor/tapstack/tap"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// runKernelLink moves the test's goroutine into a network namespace, and connects
// its kernel to the site by a link with so many queues.
func (s *site) runKernelLink(queues int) *tapstack.Link {
	s.t.Helper()
	transport, err := simvsock.Dir(s.vsock, 16)
	if err != nil {
		s.t.Fatal(err)
	}
	tapstacktest.PrivateNetwork(s.t)
	device, err := tap.Open("tap0", tap.Options{Queues: queues})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := tap.DisableIPv6("tap0"); err != nil {
		s.t.Fatal(err)
	}
	if err := tap.Configure(tap.Settings{Name: "tap0", MAC: tapstack.EnclaveMAC(), GatewayMAC: tapstack.GatewayMAC()}); err != nil {
		s.t.Fatal(err)
	}
	link, err := tapstack.NewLink(tapstack.LinkConfig{
		Device: device, Queues: device.Further(), Log: slog.New(slog.DiscardHandler),
		Dial: func(ctx context.Context) (net.Conn, error) {
			return s.line.dial(func() (net.Conn, error) {
				return transport.Dial(ctx, vsockconn.Addr{CID: vsockconn.CIDParent, Port: tapstack.LinkPort})
			})
		},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.ctx)
	var running sync.WaitGroup
	running.Go(func() {
		if err := link.Run(ctx); err != nil {
			s.t.Errorf("link: %v", err)
		}
	})
	s.t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	s.events.await(s.t, "link attached")
	return link
}

// echo sends random bytes from the namespace of the test's goroutine to the echo
// server, and checks what comes back.
func (s *site) echo(port uint16, size int) {
	s.t.Helper()
	to := netip.AddrPortFrom(tapstack.HostAliasAddr(), port).String()
	conn, err := (&net.Dialer{Timeout: patience}).Dial("tcp", to)
	if err != nil {
		s.t.Fatal(err)
	}
	s.exchange(conn, size)
}

func (s *site) exchange(conn net.Conn, size int) {
	s.transfer(conn.(*net.TCPConn), io.LimitReader(rand.NewChaCha8([32]byte{byte(size)}), int64(size)))
}

// transfer sends what source has, and checks what comes back.
func (s *site) transfer(conn *net.TCPConn, source io.Reader) {
	defer conn.Close()
	sent, came := sha256.New(), sha256.New()
	var size int64
	var sending sync.WaitGroup
	sending.Go(func() {
		var err error
		if size, err = io.Copy(io.MultiWriter(conn, sent), source); err != nil {
			s.t.Errorf("send: %v", err)
		}
		if err := conn.CloseWrite(); err != nil {
			s.t.Errorf("close: %v", err)
		}
	})
	n, err := io.Copy(came, conn)
	sending.Wait()
	if err != nil || n != size || string(sent.Sum(nil)) != string(came.Sum(nil)) {
		s.t.Errorf("%d bytes came back of %d, %v; or others", n, size, err)
	}
}

// await polls for what other goroutines count after they have done it.
func (s *site) await(what string, done func() bool) {
	s.t.Helper()
	for !done() {
		if s.ctx.Err() != nil {
			s.t.Fatalf("waited in vain until %s; lanes are %+v", what, s.lanes())
		}
		runtime.Gosched()
	}
}

func (s *site) lanes() []netstack.LaneStats { return s.gateway.Enclaves()[0].Stats.Lanes }

// TestIntegrationLanes: with a TAP queue for each of two lanes, a kernel sends a flow
// by the lane that brings it, all lanes are used, and every byte arrives, also when
// the ends do not take the same number.
func TestIntegrationLanes(t *testing.T) {
	for _, tt := range []struct{ host, enclave, want int }{{2, 2, 2}, {1, 2, 1}, {4, 2, 2}, {2, 1, 1}} {
		t.Run(fmt.Sprintf("host %d, enclave %d", tt.host, tt.enclave), func(t *testing.T) {
			tapstacktest.RequireTAP(t)
			port := echoServer(t).Port()
			s := newSite(t, gateway.Config{Lanes: tt.host, HostLoopback: true})
			link := s.runKernelLink(tt.enclave)
			s.await("all lanes are used", func() bool { return len(s.lanes()) == tt.want })
			const size = 1 << 20
			for range 8 {
				before := s.lanes()
				s.echo(port, size)
				s.await("all of the flow is counted", func() bool {
					up, down := carried(before, s.lanes())
					return up >= size && down >= size
				})
				checkOneLane(t, before, s.lanes())
			}
			for range 24 {
				s.echo(port, 1000)
			}
			for i, lane := range s.lanes() {
				if lane.UplinkFrames == 0 || lane.DownlinkFrames == 0 {
					t.Errorf("lane %d of %d carried %+v in 32 flows", i, tt.want, lane)
				}
			}
			if got := link.Status(); got.Lanes != tt.want || got.Drops != (tapstack.LinkDrops{}) {
				t.Errorf("the enclave's end is %+v, want %d lanes and no drops", got, tt.want)
			}
		})
	}
}

// carried is what all lanes carried between two counts.
func carried(before, after []netstack.LaneStats) (up, down uint64) {
	for i := range after {
		up += after[i].UplinkBytes - before[i].UplinkBytes
		down += after[i].DownlinkBytes - before[i].DownlinkBytes
	}
	return up, down
}

// checkOneLane demands that the flow between two counts kept to one lane, but for
// its first segment, for which the kernel chooses one by itself.
func checkOneLane(t *testing.T, before, after []netstack.LaneStats) {
	t.Helper()
	const few = 64 << 10 // that segment, and what is counted late of the flow before
	lanes := 0
	for i := range after {
		up, down := after[i].UplinkBytes-before[i].UplinkBytes, after[i].DownlinkBytes-before[i].DownlinkBytes
		if (up > few) != (down > few) {
			t.Errorf("lane %d brought %d bytes and took %d of one flow", i, down, up)
		}
		if down > few {
			lanes++
		}
	}
	if lanes != 1 {
		t.Errorf("one flow was in %d lanes", lanes)
	}
}
