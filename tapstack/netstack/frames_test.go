package netstack_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/netstack"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

// raw is a stream on which the test writes frames itself.
type raw struct {
	t     *testing.T
	stack *netstack.Stack
	conn  net.Conn
	ended chan error
}

func newRaw(t *testing.T, c netstack.Config) *raw {
	t.Helper()
	s, err := netstack.New(c)
	if err != nil {
		t.Fatal(err)
	}
	host, enclave := socketPair(t)
	r := &raw{t: t, stack: s, conn: enclave, ended: make(chan error, 1)}
	peer := plainPeer()
	peer.Takes.IPv6 = c.IPv6
	go func() { r.ended <- s.Attach(t.Context(), host, peer) }()
	t.Cleanup(func() {
		enclave.Close()
		s.Close()
	})
	if err := enclave.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *raw) send(frames ...[]byte) {
	r.t.Helper()
	var b []byte
	for _, f := range frames {
		b = tapstack.AppendFrame(b, f)
	}
	if _, err := r.conn.Write(b); err != nil {
		r.t.Fatal(err)
	}
}

// receive returns the next frame from the host.
func (r *raw) receive() []byte {
	r.t.Helper()
	var length [2]byte
	if _, err := io.ReadFull(r.conn, length[:]); err != nil {
		r.t.Fatal(err)
	}
	frame := make([]byte, binary.LittleEndian.Uint16(length[:]))
	if _, err := io.ReadFull(r.conn, frame); err != nil {
		r.t.Fatal(err)
	}
	return frame
}

func arpRequest(target netip.Addr) []byte {
	return tapstacktest.ARPRequest(tapstack.EnclaveMAC(), tapstack.EnclaveAddr(), target)
}

func echoRequest(target netip.Addr, id uint16) []byte {
	return tapstacktest.Ethernet(tapstack.GatewayMAC(), tapstack.EnclaveMAC(), 0x0800,
		tapstacktest.IPv4(1, tapstack.EnclaveAddr(), target, tapstacktest.ICMPEcho(id, 1, []byte("ping"))))
}

// TestFramesOfWire reads the test vectors that both ends of the link read.
func TestFramesOfWire(t *testing.T) {
	t.Parallel()
	r := newRaw(t, netstack.Config{})
	if _, err := r.conn.Write(tapstacktest.Vector(t, "../testdata/arp-probe.hex")); err != nil {
		t.Fatal(err)
	}
	want := tapstacktest.Vector(t, "../testdata/arp-reply.hex")
	if got := tapstack.AppendFrame(nil, r.receive()); string(got) != string(want) {
		t.Errorf("the probe is answered by % x, want % x", got, want)
	}
}

func TestGatewayAnswersForItselfAlone(t *testing.T) {
	t.Parallel()
	r := newRaw(t, netstack.Config{Aliases: []netip.Addr{tapstack.HostAliasAddr()}})
	ignored := [][]byte{
		arpRequest(tapstack.EnclaveAddr()), // or the enclave would find its address taken
		arpRequest(netip.MustParseAddr("192.168.127.77")),
		echoRequest(netip.MustParseAddr("198.51.100.1"), 7), // nobody knows whether it lives
	}
	r.send(ignored...)
	for _, addr := range []netip.Addr{tapstack.GatewayAddr(), tapstack.HostAliasAddr()} {
		r.send(arpRequest(addr))
		want := tapstacktest.ARPReply(tapstack.GatewayMAC(), addr, tapstack.EnclaveMAC(), tapstack.EnclaveAddr())
		if got := r.receive(); string(got) != string(want) {
			t.Errorf("ARP for %s is answered by % x, want % x", addr, got, want)
		}
	}
	r.send(echoRequest(tapstack.GatewayAddr(), 8))
	const icmp = 14 + 20
	if got := r.receive(); len(got) < icmp+8 || got[icmp] != 0 || got[icmp+5] != 8 {
		t.Errorf("echo to the gateway is answered by % x, want an echo reply with identifier 8", got)
	}
	if got := r.stack.Stats().Drops.NotForGateway; got != uint64(len(ignored)) {
		t.Errorf("%d dropped as not for the gateway, want %d", got, len(ignored))
	}
}

func TestHostLearnsTheEnclavesMAC(t *testing.T) {
	t.Parallel()
	r := newRaw(t, netstack.Config{})
	mac := net.HardwareAddr{0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xee}
	r.send(tapstacktest.Ethernet(tapstack.GatewayMAC(), mac, 0x0800, tapstacktest.IPv4(1, tapstack.EnclaveAddr(),
		tapstack.GatewayAddr(), tapstacktest.ICMPEcho(1, 1, nil))))
	if got := net.HardwareAddr(r.receive()[:6]); got.String() != mac.String() {
		t.Errorf("the answer goes to %s, want %s, without asking by ARP", got, mac)
	}
}

func TestFramesThatAreDropped(t *testing.T) {
	t.Parallel()
	header := tapstacktest.Ethernet(tapstack.GatewayMAC(), tapstack.EnclaveMAC(), 0x0800, nil)
	tests := []struct {
		name  string
		frame []byte
		want  netstack.Drops
	}{
		{"IPv6", tapstacktest.Ethernet(tapstack.GatewayMAC(), tapstack.EnclaveMAC(), 0x86dd, make([]byte, 40)), netstack.Drops{Protocol: 1}},
		{"length instead of a type", tapstacktest.Ethernet(tapstack.GatewayMAC(), tapstack.EnclaveMAC(), 0x0026, make([]byte, 38)), netstack.Drops{Protocol: 1}},
		{"a header alone", header, netstack.Drops{Malformed: 1}},
		{"half an IPv4 header", append(header, make([]byte, 19)...), netstack.Drops{Malformed: 1}},
		{"half an ARP packet", tapstacktest.Ethernet(tapstacktest.Broadcast(), tapstack.EnclaveMAC(), 0x0806, make([]byte, 27)), netstack.Drops{Malformed: 1}},
		{"IPv4 of zeros", append(header, make([]byte, 1486)...), netstack.Drops{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRaw(t, netstack.Config{})
			r.send(tt.frame, arpRequest(tapstack.GatewayAddr()))
			r.receive() // the stream goes on
			if got := r.stack.Stats(); got.Drops != tt.want || got.UplinkFrames != 2 {
				t.Errorf("stats = %+v, want 2 frames and %+v", got, tt.want)
			}
		})
	}
}

func TestLostFramingClosesTheStream(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		bytes []byte
		want  error
	}{
		"shorter than an Ethernet header": {tapstacktest.Vector(t, "../testdata/frame-short.hex"), tapstack.ErrFrameSize},
		"of no length":                    {tapstacktest.Vector(t, "../testdata/frame-zero.hex"), tapstack.ErrFrameSize},
		"cut off":                         {tapstacktest.Vector(t, "../testdata/frame-cut.hex"), io.ErrUnexpectedEOF},
		"none":                            {nil, io.EOF},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRaw(t, netstack.Config{})
			if _, err := r.conn.Write(tt.bytes); err != nil {
				t.Fatal(err)
			}
			if err := r.conn.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if err := <-r.ended; !errors.Is(err, tt.want) {
				t.Errorf("Attach = %v, want %v", err, tt.want)
			}
		})
	}
}

// TestReaderDoesNotWaitForWriter: an enclave that takes nothing can still be
// heard. Otherwise two ends that are both full wait for each other for ever.
func TestReaderDoesNotWaitForWriter(t *testing.T) {
	t.Parallel()
	s, err := netstack.New(netstack.Config{})
	if err != nil {
		t.Fatal(err)
	}
	host, enclave := net.Pipe() // no buffer: the first answer blocks the writer
	ended := make(chan error, 1)
	go func() { ended <- s.Attach(t.Context(), host, plainPeer()) }()
	const frames = 60000 // their answers are more than the queue holds
	request := tapstack.AppendFrame(nil, arpRequest(tapstack.GatewayAddr()))
	for range frames {
		if _, err := enclave.Write(request); err != nil {
			t.Fatal(err)
		}
	}
	enclave.Close()
	<-ended
	s.Close()
	if got := s.Stats(); got.UplinkFrames != frames || got.Drops.QueueFull == 0 {
		t.Errorf("stats = %+v, want %d frames read and a full queue", got, frames)
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(tapstack.AppendFrame(nil, arpRequest(tapstack.GatewayAddr())))
	f.Add(tapstack.AppendFrame(nil, echoRequest(tapstack.GatewayAddr(), 1)))
	f.Add(tapstack.AppendFrame(nil, echoRequest(outside(0).Addr(), 1)))
	syn := []byte{0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0}
	f.Add(tapstack.AppendFrame(nil, tapstacktest.Ethernet(tapstack.GatewayMAC(), tapstack.EnclaveMAC(), 0x0800,
		tapstacktest.IPv4(6, tapstack.EnclaveAddr(), netip.MustParseAddr("198.51.100.1"), syn))))
	f.Add([]byte{13, 0, 1, 2, 3})
	f.Fuzz(func(t *testing.T, stream []byte) {
		s, err := netstack.New(netstack.Config{
			TCP: func(f *netstack.TCPFlow) { f.Reject() },
			Echo: func(e *netstack.Echo) {
				e.Reply(e.Payload)
				e.Fail(netip.Addr{}, e.OwnError(netstack.Unreachable))
			},
			UDP: func(f *netstack.UDPFlow) {
				if conn, err := f.Accept(); err == nil {
					conn.Close()
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		host, enclave := socketPair(t)
		var peer sync.WaitGroup
		peer.Go(func() {
			enclave.Write(stream)
			enclave.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, enclave)
			enclave.Close()
		})
		defer peer.Wait()
		if err := s.Attach(t.Context(), host, plainPeer()); err == nil {
			t.Error("a stream that ended gave no reason")
		}
		s.Close()
		// Frames that were counted are frames of the stream, no more.
		if got := s.Stats(); got.UplinkBytes+2*got.UplinkFrames > uint64(len(stream)) {
			t.Errorf("%d bytes made %+v", len(stream), got)
		}
	})
}
