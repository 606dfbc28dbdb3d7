package gateway_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/host/gateway"
	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/netstack/netstacktest"
	"github.com/corridor-enclave/corridor/tapstack/simvsock"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// holdings are what a process can leak.
type holdings struct {
	goroutines, descriptors int
	heap, resident          int64 // bytes
}

func holdingsNow(t *testing.T) holdings {
	t.Helper()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	open, err := os.ReadDir("/proc/self/fd")
	tapstacktest.Require(t, err, "the descriptors of this process in /proc", "run on Linux with /proc mounted")
	statm, err := os.ReadFile("/proc/self/statm") // proc_pid_statm(5)
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(string(bytes.Fields(statm)[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return holdings{runtime.NumGoroutine(), len(open), int64(m.HeapInuse), pages * int64(os.Getpagesize())}
}

// A line is the way between the two ends of a link. The zero value is whole.
type line struct {
	mu    sync.Mutex
	isCut bool
	conns []net.Conn
}

func (l *line) dial(dial func() (net.Conn, error)) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isCut {
		return nil, errors.New("the line is cut")
	}
	conn, err := dial()
	if err == nil {
		l.conns = append(l.conns, conn)
	}
	return conn, err
}

// cut ends what is open, and lets nothing else through until mend.
func (l *line) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.isCut = true
	for _, c := range l.conns {
		c.Close()
	}
	l.conns = nil
}

func (l *line) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.isCut = false
}

// dialLink connects to the link's port as an enclave.
func (s *site) dialLink(cid vsockconn.CID) net.Conn {
	s.t.Helper()
	transport, err := simvsock.Dir(s.vsock, cid)
	if err != nil {
		s.t.Fatal(err)
	}
	conn, err := transport.Dial(s.ctx, vsockconn.Addr{CID: vsockconn.CIDParent, Port: tapstack.LinkPort})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		s.t.Fatal(err)
	}
	return conn
}

// TestManyReconnects: an enclave opens its link again and again, of either kind,
// and loses it between two frames, inside one, or by sending what is none.
func TestManyReconnects(t *testing.T) {
	reconnects := 1000
	if os.Getenv("CORRIDOR_REQUIRE") == "all" {
		reconnects = 10_000
	}
	s := newSite(t, gateway.Config{})
	plain := append(tapstacktest.Vector(t, "../../tapstack/testdata/connect-request.hex"), tapstacktest.Vector(t, "../../tapstack/testdata/arp-probe.hex")...)
	extended := tapstacktest.Vector(t, "../../tapstack/testdata/upgrade-request-2.hex")
	endings := [][]byte{
		nil,
		tapstacktest.Vector(t, "../../tapstack/testdata/frame-cut.hex"),
		tapstacktest.Vector(t, "../../tapstack/testdata/frame-zero.hex"),
		[]byte("GET / HTTP/1.1\r\n\r\n"),
	}
	reconnect := func(i int) (answered bool) {
		conn := s.dialLink(16)
		defer conn.Close()
		request, answer := plain, 2+42 // the ARP reply
		if i%2 == 1 {
			request, answer = extended, len("HTTP/1.1 101")
		}
		// One link too many of this enclave is closed: those before have not ended yet.
		if _, err := conn.Write(request); err != nil {
			return false
		}
		if _, err := io.ReadFull(conn, make([]byte, answer)); err != nil {
			return false
		}
		_, _ = conn.Write(endings[i/2%len(endings)])
		return true
	}
	many := func(n int) (refused int) {
		for i := 0; i < n; {
			if reconnect(i) {
				i++
				continue
			}
			refused++
			if s.ctx.Err() != nil {
				t.Fatalf("no answer to reconnect %d", i)
			}
			runtime.Gosched()
		}
		return refused
	}
	many(100) // pools are filled
	before := holdingsNow(t)
	start := time.Now()
	refused := many(reconnects)
	t.Logf("%d reconnects in %v, %d attempts were one too many", reconnects, time.Since(start).Round(time.Millisecond), refused)
	deadline := time.After(patience)
	for {
		after := holdingsNow(t)
		if after.goroutines <= before.goroutines+8 && after.descriptors <= before.descriptors+4 &&
			after.heap < before.heap+16<<20 && after.resident < before.resident+64<<20 {
			t.Logf("before %+v, after %+v", before, after)
			return
		}
		select {
		case <-deadline:
			t.Fatalf("after %d reconnects %+v, before %+v", reconnects, after, before)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// TestFloodHurtsNobodyElse: an enclave sends forged addresses, ARP and SYNs as fast
// as it can, and takes nothing. Another one is served meanwhile, and what the host
// holds for the first is bounded.
func TestFloodHurtsNobodyElse(t *testing.T) {
	s := newSite(t, gateway.Config{HostLoopback: true})
	gone := newClosedPort(t)
	server := echoServer(t)
	good := netstacktest.NewEnclave(t)
	s.attach(17, good)
	hostile := s.dialLink(16)
	defer hostile.Close()
	if _, err := io.WriteString(hostile, "POST /connect HTTP/1.1\r\nHost: \r\nContent-Length: 0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	s.events.await(t, "link attached")
	before := holdingsNow(t)
	stop := make(chan struct{})
	var flooding sync.WaitGroup
	flooding.Go(func() {
		for i := uint32(0); ; {
			var b []byte
			for range 256 {
				b = appendForged(b, i, alias(gone), alias(server))
				i++
			}
			select {
			case <-stop:
				return
			default:
			}
			if _, err := hostile.Write(b); err != nil {
				t.Errorf("the flood ended: %v", err)
				return
			}
		}
	})
	for i := range 8 {
		conn := mustDial(t, s, good, alias(server))
		exchange(t, conn, fmt.Sprintf("beside the flood %d", i))
		conn.Close()
	}
	during := holdingsNow(t)
	close(stop)
	flooding.Wait()
	// Up to 8192 flows, 4096 undecided ones, and two goroutines for each.
	if grown := during.heap - before.heap; grown > 256<<20 {
		t.Errorf("the flood takes %d bytes of the host", grown)
	}
	if during.goroutines > before.goroutines+4*8192+4096 {
		t.Errorf("%d goroutines during the flood", during.goroutines)
	}
	for _, e := range s.gateway.Enclaves() {
		t.Logf("enclave %s: %+v %+v", e.CID, e.Flows.TCP, e.Stats)
		if e.CID == 16 && e.Stats.UplinkFrames < 1000 {
			t.Errorf("only %d frames of the flood came in", e.Stats.UplinkFrames)
		}
	}
}

// appendForged appends the i-th frame of a flood.
func appendForged(b []byte, i uint32, to ...netip.AddrPort) []byte {
	mac := net.HardwareAddr{2, 0, byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)}
	from := netip.AddrPortFrom(netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 0x0a000000+i))), 1234)
	if i%4 == 0 {
		from = netip.AddrPortFrom(tapstack.EnclaveAddr(), uint16(1024+i/4%60000)) // answers go to a MAC of its choice
	}
	if i%4 == 1 {
		return tapstack.AppendFrame(b, tapstacktest.ARPRequest(mac, from.Addr(), tapstack.GatewayAddr()))
	}
	dst := to[i/4%uint32(len(to))]
	syn := tapstacktest.TCP(from, dst, i, 2, nil)
	return tapstack.AppendFrame(b, tapstacktest.Ethernet(tapstack.GatewayMAC(), mac, tapstacktest.EtherTypeIPv4,
		tapstacktest.IPv4(tapstacktest.ProtocolTCP, from.Addr(), dst.Addr(), syn)))
}
