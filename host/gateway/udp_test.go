package gateway_test

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/corridor-enclave/corridor/host/gateway"
	"github.com/corridor-enclave/corridor/tapstack/netstack/netstacktest"
	"github.com/corridor-enclave/corridor/tapstack/relay"
)

// echoDatagrams is a server of the host's loopback that sends back what comes.
func echoDatagrams(t *testing.T) netip.AddrPort {
	t.Helper()
	pc, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1<<16)
		for {
			n, from, err := pc.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			pc.WriteToUDPAddrPort(buf[:n], from)
		}
	}()
	t.Cleanup(func() {
		pc.Close()
		<-done
	})
	return pc.LocalAddr().(*net.UDPAddr).AddrPort()
}

// TestLargeDatagrams: the largest pass whole, in fragments on the link, and what is
// longer than the next one's buffer leaves nothing behind in it.
func TestLargeDatagrams(t *testing.T) {
	t.Parallel()
	s, e := newSite(t, gateway.Config{HostLoopback: true}), netstacktest.NewEnclave(t)
	s.attach(16, e)
	conn, err := e.DialUDP(alias(echoDatagrams(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	buf := make([]byte, 1<<16)
	for i, size := range []int{1, 1472, 1473, 9000, 30000, 2, 0, 30001, 1} {
		sent := bytes.Repeat([]byte{byte(i), 0xa5}, size)[:size]
		if _, err := conn.Write(sent); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(buf)
		if err != nil || !bytes.Equal(buf[:n], sent) {
			t.Fatalf("a datagram of %d bytes comes back with %d, %v", size, n, err)
		}
	}
	if got := s.gateway.Enclaves()[0].Flows.UDP; got.Total != 1 || got.Failed > 0 {
		t.Errorf("flows = %+v, want one", got)
	}
}

// TestQuietFlowsHoldNoBuffers measures what flows take that carried a datagram and
// are silent since: far less than one datagram's buffer, of which each had two.
// It counts the enclave's stack too, which is in the same process.
func TestQuietFlowsHoldNoBuffers(t *testing.T) {
	s, e := newSite(t, gateway.Config{HostLoopback: true}), netstacktest.NewEnclave(t)
	s.attach(16, e)
	to := alias(echoDatagrams(t))
	const flows = 256
	open := func(n int) {
		t.Helper()
		buf := make([]byte, 64)
		for range n {
			conn, err := e.DialUDP(to)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close() })
			if _, err := io.WriteString(conn, "hello"); err != nil {
				t.Fatal(err)
			}
			if n, err := conn.Read(buf); err != nil || n != 5 {
				t.Fatalf("%d bytes, %v", n, err)
			}
		}
	}
	open(8) // what is made once
	before := heapInUse()
	open(flows)
	each := (int64(heapInUse()) - int64(before)) / flows
	if got := s.gateway.Enclaves()[0].Flows.UDP.Open; got != flows+8 {
		t.Fatalf("%d flows are open, want %d", got, flows+8)
	}
	t.Logf("%d bytes of heap for each silent flow", each)
	if each > relay.MaxDatagram/2 {
		t.Errorf("a silent flow holds %d bytes: that is a buffer", each)
	}
}

// heapInUse is what is reachable: pools are empty after two collections.
func heapInUse() uint64 {
	runtime.GC()
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
