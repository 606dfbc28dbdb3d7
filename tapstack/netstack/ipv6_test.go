package netstack_test

import (
	"encoding/binary"
	"io"
	"net/netip"
	"testing"

	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/netstack"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

const (
	protocolICMPv6 = 58
	solicitation   = 135
	advertisement  = 136
	echoRequest6   = 128
	echoReply6     = 129
	behindIPv6     = 14 + 40
)

// frame6 is a packet of the enclave.
func frame6(next byte, to netip.Addr, content []byte) []byte {
	packet := tapstacktest.IPv6(next, tapstack.EnclaveAddr6(), to, content)
	packet[7] = 255 // hops left: neighbour discovery takes no packet that a router has passed on
	return tapstacktest.Ethernet(tapstack.GatewayMAC(), tapstack.EnclaveMAC(), tapstacktest.EtherTypeIPv6, packet)
}

// icmp6 completes the checksum of a message.
func icmp6(kind byte, to netip.Addr, body []byte) []byte {
	b := append([]byte{kind, 0, 0, 0}, body...)
	covered := append(tapstacktest.Pseudo(tapstack.EnclaveAddr6(), to, protocolICMPv6, len(b)), b...)
	binary.BigEndian.PutUint16(b[2:], tapstacktest.Checksum(0, covered))
	return b
}

// solicit asks for a hardware address, of the group that its owner is in.
func solicit(target netip.Addr) []byte {
	group := netip.MustParseAddr("ff02::1:ff00:0").As16()
	addr := target.As16()
	copy(group[13:], addr[13:])
	to := netip.AddrFrom16(group)
	body := append(make([]byte, 4), target.AsSlice()...)
	body = append(append(body, 1, 1), tapstack.EnclaveMAC()...) // our own address
	return frame6(protocolICMPv6, to, icmp6(solicitation, to, body))
}

func ping6(to netip.Addr) []byte {
	return frame6(protocolICMPv6, to, icmp6(echoRequest6, to, []byte{0, 7, 0, 1, 'p'}))
}

func outside6(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr("2001:db8::7"), port)
}

// TestGatewayAnswersForItselfAloneInIPv6: neither in the name of others, nor
// behind headers that hide what is asked.
func TestGatewayAnswersForItselfAloneInIPv6(t *testing.T) {
	t.Parallel()
	r := newRaw(t, netstack.Config{IPv6: true})
	gateway, other := tapstack.GatewayAddr6(), outside6(0).Addr()
	echo := icmp6(echoRequest6, other, []byte{0, 7, 0, 1})
	hopByHop := append([]byte{protocolICMPv6, 0, 1, 4, 0, 0, 0, 0}, echo...)
	fragment := append([]byte{protocolICMPv6, 0, 0, 0, 0, 0, 0, 1}, echo...)
	router := netip.MustParseAddr("ff02::2")
	r.send(
		solicit(tapstack.EnclaveAddr6()), solicit(other), ping6(other), // NotForGateway, as the router solicitation and the fragment
		frame6(protocolICMPv6, router, icmp6(133, router, make([]byte, 4))),
		frame6(44, other, fragment),
		frame6(0, other, hopByHop), frame6(0, gateway, hopByHop), frame6(59, gateway, nil), // Protocol
		frame6(44, gateway, fragment[:7]), frame6(6, other, nil)[:53], // Malformed
	)
	r.send(solicit(gateway))
	got := r.receive()
	if len(got) < behindIPv6+24 || got[behindIPv6] != advertisement || netip.AddrFrom16([16]byte(got[behindIPv6+8:])) != gateway {
		t.Fatalf("a solicitation is answered by % x", got)
	}
	r.send(ping6(gateway))
	if got := r.receive(); len(got) < behindIPv6+8 || got[behindIPv6] != echoReply6 {
		t.Errorf("a ping is answered by % x", got)
	}
	drops := r.stack.Stats().Drops
	if drops.NotForGateway != 5 || drops.Protocol != 3 || drops.Malformed != 2 {
		t.Errorf("drops are %+v, want 5 not for the gateway, 3 of other protocols, 2 malformed", drops)
	}
}

// TestIPv6IsDroppedUnlessBothHaveIt.
func TestIPv6IsDroppedUnlessBothHaveIt(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]bool{"the host has none": false, "the enclave did not say so": true} {
		r := newRaw(t, netstack.Config{})
		if config {
			r = newRaw(t, netstack.Config{IPv6: true})
			// A stream of the first version in place of it.
			host, enclave := socketPair(t)
			r.conn.Close()
			<-r.ended
			r.conn = enclave
			go func() { r.ended <- r.stack.Attach(t.Context(), host, plainPeer()) }()
		}
		r.send(solicit(tapstack.GatewayAddr6()), arpRequest(tapstack.GatewayAddr()))
		want := tapstacktest.ARPReply(tapstack.GatewayMAC(), tapstack.GatewayAddr(), tapstack.EnclaveMAC(), tapstack.EnclaveAddr())
		if got := r.receive(); string(got) != string(want) {
			t.Errorf("%s: the solicitation is answered by % x", name, got)
		}
		if got := r.stack.Stats().Drops.Protocol; got != 1 {
			t.Errorf("%s: %d packets dropped, want 1", name, got)
		}
		r.conn.Close()
	}
}

func TestIPv6Flows(t *testing.T) {
	t.Parallel()
	destinations := make(chan netip.AddrPort, 2)
	w := newWorld(t, netstack.Config{
		IPv6: true,
		TCP: func(f *netstack.TCPFlow) {
			destinations <- f.Destination
			echo(f)
		},
		UDP: func(f *netstack.UDPFlow) {
			destinations <- f.Destination
			conn, err := f.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			go func() {
				io.Copy(conn, conn)
			}()
			t.Cleanup(func() { conn.Close() })
		},
	})
	conn, err := w.enclave.DialTCP(w.ctx, outside6(80))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := <-destinations; got != outside6(80) {
		t.Errorf("the flow goes to %s", got)
	}
	data := make([]byte, 1<<20)
	go conn.Write(data)
	if _, err := io.ReadFull(conn, make([]byte, len(data))); err != nil {
		t.Errorf("echo over TCP: %v", err)
	}
	datagrams, err := w.enclave.DialUDP(outside6(53))
	if err != nil {
		t.Fatal(err)
	}
	defer datagrams.Close()
	if _, err := datagrams.Write([]byte("question")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	if n, err := datagrams.Read(buf); err != nil || string(buf[:n]) != "question" {
		t.Errorf("echo over UDP: %q, %v", buf[:n], err)
	}
	if got := <-destinations; got != outside6(53) {
		t.Errorf("the datagram goes to %s", got)
	}
}
