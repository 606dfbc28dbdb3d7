package tapstack_test

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

// vectorFrame is the frame in a vector that holds one frame with its length.
func vectorFrame(t testing.TB, name string) []byte {
	t.Helper()
	b := vector(t, name)
	if len(b) < 2 || int(binary.LittleEndian.Uint16(b)) != len(b)-2 {
		t.Fatalf("vector %s is not one frame", name)
	}
	return b[2:]
}

func TestARPRequestMatchesVector(t *testing.T) {
	t.Parallel()
	got := tapstack.ARPRequest(tapstack.EnclaveMAC(), tapstack.EnclaveAddr(), tapstack.GatewayAddr())
	if want := vectorFrame(t, "arp-probe.hex"); !bytes.Equal(got, want) {
		t.Errorf("arpRequest = % x, want % x", got, want)
	}
}

func TestIsARPReply(t *testing.T) {
	t.Parallel()
	reply := vectorFrame(t, "arp-reply.hex")
	with := func(off int, b byte) []byte {
		frame := bytes.Clone(reply)
		frame[off] = b
		return frame
	}
	tests := []struct {
		name  string
		frame []byte
		want  bool
	}{
		{name: "nothing", frame: nil},
		{name: "one byte too few", frame: reply[:len(reply)-1]},
		{name: "other EtherType", frame: with(13, 0)},
		{name: "other hardware", frame: with(15, 6)},
		{name: "other protocol", frame: with(16, 0x86)},
		{name: "other MAC length", frame: with(18, 8)},
		{name: "other address length", frame: with(19, 16)},
		{name: "a request", frame: with(21, 1)},
		{name: "from another address", frame: with(31, 3)},
		{name: "for another address", frame: with(41, 3)},
		{name: "our own probe", frame: vectorFrame(t, "arp-probe.hex")},
		{name: "the reply", frame: reply, want: true},
		{name: "the reply from another MAC", frame: with(22, 2), want: true},
		{name: "the reply, padded as by a network card", frame: append(bytes.Clone(reply), make([]byte, 18)...), want: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := tapstack.IsARPReply(tt.frame, tapstack.EnclaveAddr(), tapstack.GatewayAddr()); got != tt.want {
				t.Errorf("tapstack.IsARPReply(% x) = %t, want %t", tt.frame, got, tt.want)
			}
		})
	}
}

// FuzzIsARPReply: a frame is a reply exactly if its ARP part is what the
// builder of the tests makes of the MACs in it.
func FuzzIsARPReply(f *testing.F) {
	f.Add(vectorFrame(f, "arp-reply.hex"), uint32(0xc0a87f02), uint32(0xc0a87f01))
	f.Add(vectorFrame(f, "arp-probe.hex"), uint32(0xc0a87f02), uint32(0xc0a87f01))
	f.Fuzz(func(t *testing.T, frame []byte, enclave, host uint32) {
		addr, gateway := addrOf(enclave), addrOf(host)
		got := tapstack.IsARPReply(frame, addr, gateway)
		want := false
		if len(frame) >= len(vectorFrame(t, "arp-reply.hex")) {
			oracle := tapstacktest.ARPReply(net.HardwareAddr(frame[22:28]), gateway, net.HardwareAddr(frame[32:38]), addr)
			want = bytes.Equal(frame[12:42], oracle[12:])
		}
		if got != want {
			t.Fatalf("tapstack.IsARPReply(% x, %s, %s) = %t, want %t", frame, addr, gateway, got, want)
		}
	})
}

func addrOf(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
}
