package netstack_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"runtime"
	"testing"

	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/netstack"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

// heap is what is in use after a collection, in bytes.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse)
}

// TestStreamsLeaveNothingBehind: an enclave that connects again and again, and
// ends each stream in another way, costs the host no memory.
func TestStreamsLeaveNothingBehind(t *testing.T) {
	s, err := netstack.New(netstack.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	endings := [][]byte{
		nil, // the end, at once
		tapstacktest.Vector(t, "../testdata/arp-probe.hex"),
		tapstacktest.Vector(t, "../testdata/frame-cut.hex"),
		tapstacktest.Vector(t, "../testdata/frame-zero.hex"),
		[]byte("GET / HTTP/1.1\r\n\r\n"),
	}
	peers := []netstack.Peer{plainPeer(), {Framing: tapstack.Extended, Takes: tapstack.Capabilities{Offload: true, MaxFrame: tapstack.MaxFrame, MTU: 1500}}}
	streams := func(n int) {
		for i := range n {
			host, enclave := net.Pipe()
			go func() {
				_, _ = enclave.Write(endings[i%len(endings)]) // fails where the host closes first
				enclave.Close()
			}()
			if err := s.Attach(t.Context(), host, peers[i%len(peers)]); err == nil {
				t.Error("a stream that ended gave no reason")
			}
		}
	}
	streams(20) // pools are filled
	before := heap()
	streams(1000)
	if grown := heap() - before; grown > 8<<20 {
		t.Errorf("a thousand streams left %d bytes behind", grown)
	}
	if got := s.Stats(); got.Streams != 1020 {
		t.Errorf("%d streams counted, want 1020", got.Streams)
	}
}

// TestFloodOfForgedFrames: an enclave that opens connections in the name of
// thousands of machines gets as many undecided ones as there is room for; the
// rest is dropped and counted, and the gateway answers as before.
func TestFloodOfForgedFrames(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	r := newRaw(t, netstack.Config{TCP: func(*netstack.TCPFlow) { <-release }})
	const flood = 6000
	var b []byte
	for i := range uint32(flood) {
		mac := net.HardwareAddr{2, 0, byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)}
		src := netip.AddrPortFrom(netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 0x0a000000+i))), 1234)
		to := outside(80)
		syn := tapstacktest.TCP(src, to, 1, 2, nil)
		b = tapstack.AppendFrame(b, tapstacktest.Ethernet(tapstack.GatewayMAC(), mac, tapstacktest.EtherTypeIPv4,
			tapstacktest.IPv4(tapstacktest.ProtocolTCP, src.Addr(), to.Addr(), syn)))
	}
	if _, err := r.conn.Write(b); err != nil {
		t.Fatal(err)
	}
	r.send(arpRequest(tapstack.GatewayAddr()))
	want := tapstacktest.ARPReply(tapstack.GatewayMAC(), tapstack.GatewayAddr(), tapstack.EnclaveMAC(), tapstack.EnclaveAddr())
	if got := r.receive(); string(got) != string(want) {
		t.Errorf("behind the flood ARP is answered by % x, want % x", got, want)
	}
	if got := r.stack.Stats(); got.UplinkFrames != flood+1 || got.Drops.InFlight < flood/10 {
		t.Errorf("stats = %+v, want %d frames and many of them dropped", got, flood+1)
	}
	close(release)
}
