package netstack_test

import (
	"bytes"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/netstack"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

// TestSilentEnclaveIsAskedForItsMAC: the first frame to an enclave that has not
// said anything asks who it is; to one that has asked for an address by DHCP, or
// has spoken, frames go where they must at once.
func TestSilentEnclaveIsAskedForItsMAC(t *testing.T) {
	t.Parallel()
	mac := net.HardwareAddr{0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xee}
	from, to := netip.MustParseAddrPort("0.0.0.0:68"), netip.MustParseAddrPort("255.255.255.255:67")
	dhcp := tapstacktest.IPv4(17, from.Addr(), to.Addr(), tapstacktest.UDP(from, to, []byte("discover")))
	for _, tt := range []struct {
		name    string
		frame   []byte // from the enclave; nil is none
		asked   bool
		towards net.HardwareAddr
	}{
		{"silent", nil, true, tapstack.EnclaveMAC()},
		{"asked for an address", tapstacktest.Ethernet(tapstacktest.Broadcast(), mac, 0x0800, dhcp), true, mac},
		{"spoken", tapstacktest.ARPRequest(mac, tapstack.EnclaveAddr(), tapstack.GatewayAddr()), false, mac},
		{"spoken for another", tapstacktest.ARPRequest(mac, netip.MustParseAddr("192.168.127.8"), tapstack.GatewayAddr()), true, tapstack.EnclaveMAC()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRaw(t, netstack.Config{})
			if tt.frame != nil {
				r.send(tt.frame)
			}
			// An answer to somebody else shows that the frame before was taken.
			other := netip.MustParseAddr("192.168.127.9")
			r.send(tapstacktest.ARPRequest(tapstack.EnclaveMAC(), other, tapstack.GatewayAddr()))
			barrier := tapstacktest.ARPReply(tapstack.GatewayMAC(), tapstack.GatewayAddr(), tapstack.EnclaveMAC(), other)
			for !bytes.Equal(r.receive(), barrier) {
			}
			var dialing sync.WaitGroup
			dialing.Go(func() {
				if conn, err := r.stack.DialTCP(t.Context(), netip.AddrPort{}, inEnclave(443)); err == nil {
					conn.Close()
				}
			})
			defer dialing.Wait()
			defer r.stack.Close()
			if tt.asked {
				want := tapstacktest.ARPRequest(tapstack.GatewayMAC(), tapstack.GatewayAddr(), tapstack.EnclaveAddr())
				if got := r.receive(); string(got) != string(want) {
					t.Errorf("first frame % x, want the question % x", got, want)
				}
			}
			if got := net.HardwareAddr(r.receive()[:6]); got.String() != tt.towards.String() {
				t.Errorf("the connection goes to %s, want %s", got, tt.towards)
			}
		})
	}
}
