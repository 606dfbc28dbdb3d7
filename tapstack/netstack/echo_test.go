package netstack_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/netstack"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

const behindIPv4 = 14 + 20

// echoes is a stack whose echo requests to others arrive in a channel.
func echoes(t *testing.T) (*raw, chan *netstack.Echo) {
	t.Helper()
	came := make(chan *netstack.Echo, 16)
	return newRaw(t, netstack.Config{IPv6: true, Echo: func(e *netstack.Echo) { came <- e }}), came
}

// TestEchoesThatAreNone: what is no request to somebody else reaches nobody, and the
// gateway still answers for itself.
func TestEchoesThatAreNone(t *testing.T) {
	t.Parallel()
	r, came := echoes(t)
	other, gateway := outside(0).Addr(), tapstack.GatewayAddr()
	icmp := func(to netip.Addr, message []byte) []byte {
		return tapstacktest.Ethernet(tapstack.GatewayMAC(), tapstack.EnclaveMAC(), tapstacktest.EtherTypeIPv4,
			tapstacktest.IPv4(tapstacktest.ProtocolICMP, tapstack.EnclaveAddr(), to, message))
	}
	answer := tapstacktest.ICMPEcho(7, 1, nil)
	answer[0] = 0
	longHeader := icmp(other, tapstacktest.ICMPEcho(7, 1, nil))
	longHeader[14] = 4<<4 | 15 // says more than there is
	r.send(
		icmp(other, answer), icmp(other, []byte{3, 0, 0, 0}), icmp(other, []byte{13, 0, 0, 0}), icmp(other, nil), longHeader,
		frame6(protocolICMPv6, outside6(0).Addr(), icmp6(echoReply6, outside6(0).Addr(), make([]byte, 4))),
	)
	r.send(icmp(other, tapstacktest.ICMPEcho(7, 1, nil)[:6])) // the stack drops it itself
	r.send(echoRequest(gateway, 8))
	if got := r.receive(); len(got) < behindIPv4+8 || got[behindIPv4] != 0 || got[behindIPv4+5] != 8 {
		t.Errorf("echo to the gateway is answered by % x", got)
	}
	if len(came) > 0 {
		t.Errorf("%d handed over: %+v", len(came), <-came)
	}
	if got := r.stack.Stats().Drops.NotForGateway; got != 6 {
		t.Errorf("%d dropped as not for the gateway, want 6", got)
	}
}

func TestEchoReply(t *testing.T) {
	t.Parallel()
	r, came := echoes(t)
	to := outside(0).Addr()
	r.send(echoRequest(to, 0x1234))
	e := <-came
	if e.Destination != to || e.Hops != 63 || string(e.Payload) != "ping" {
		t.Fatalf("handed over: %+v", e)
	}
	e.Reply([]byte("pong"))
	got := r.receive()
	if len(got) != behindIPv4+8+4 || tapstacktest.Checksum(0, got[behindIPv4:]) != 0 || string(got[behindIPv4+8:]) != "pong" {
		t.Fatalf("reply % x", got)
	}
	from, dst := netip.AddrFrom4([4]byte(got[26:])), netip.AddrFrom4([4]byte(got[30:]))
	id, sequence := binary.BigEndian.Uint16(got[behindIPv4+4:]), binary.BigEndian.Uint16(got[behindIPv4+6:])
	if got[behindIPv4] != 0 || from != to || dst != tapstack.EnclaveAddr() || id != 0x1234 || sequence != 1 {
		t.Errorf("reply of %s to %s: % x", from, dst, got)
	}
}

// TestLongEcho: a request in fragments is handed over whole, and a long reply leaves
// in fragments.
func TestLongEcho(t *testing.T) {
	t.Parallel()
	r, came := echoes(t)
	to, payload := outside(0).Addr(), bytes.Repeat([]byte("0123456789abcdef"), 125)
	whole := tapstacktest.IPv4(tapstacktest.ProtocolICMP, tapstack.EnclaveAddr(), to, tapstacktest.ICMPEcho(7, 1, payload))
	const cut = 1024
	for _, piece := range []struct {
		content []byte
		field   uint16
	}{{whole[20:][cut:], cut / 8}, {whole[20:][:cut], 0x2000}} { // the last comes first
		p := tapstacktest.IPv4(tapstacktest.ProtocolICMP, tapstack.EnclaveAddr(), to, piece.content)
		binary.BigEndian.PutUint16(p[6:], piece.field)
		p[10], p[11] = 0, 0
		binary.BigEndian.PutUint16(p[10:], tapstacktest.Checksum(0, p[:20]))
		r.send(tapstacktest.Ethernet(tapstack.GatewayMAC(), tapstack.EnclaveMAC(), tapstacktest.EtherTypeIPv4, p))
	}
	e := <-came
	if !bytes.Equal(e.Payload, payload) {
		t.Fatalf("%d bytes handed over, or others", len(e.Payload))
	}
	e.Reply(payload)
	first, second := r.receive(), r.receive()
	if got := append(first[behindIPv4+8:], second[behindIPv4:]...); !bytes.Equal(got, payload) {
		t.Errorf("%d bytes in two fragments, or others", len(got))
	}
}

func TestEchoErrors(t *testing.T) {
	t.Parallel()
	r, came := echoes(t)
	request := echoRequest(outside(0).Addr(), 7)
	router := netip.MustParseAddr("203.0.113.1")
	for _, tt := range []struct {
		from, want netip.Addr
	}{{router, router}, {netip.Addr{}, tapstack.GatewayAddr()}, {outside6(0).Addr(), tapstack.GatewayAddr()}} {
		r.send(request)
		e := <-came
		e.Fail(tt.from, e.OwnError(netstack.Prohibited))
		got := r.receive()
		if len(got) != behindIPv4+8+28 || got[behindIPv4] != 3 || got[behindIPv4+1] != 13 || tapstacktest.Checksum(0, got[behindIPv4:]) != 0 {
			t.Fatalf("error % x", got)
		}
		if from := netip.AddrFrom4([4]byte(got[26:])); from != tt.want {
			t.Errorf("error comes from %s, want %s", from, tt.want)
		}
		if quoted := got[behindIPv4+8:]; !bytes.Equal(quoted, request[14:][:28]) {
			t.Errorf("quoted % x of % x", quoted, request[14:])
		}
	}
	group := echoRequest(netip.MustParseAddr("224.0.0.1"), 7)
	r.send(group)
	e := <-came
	e.Fail(netip.Addr{}, e.OwnError(netstack.Unreachable))
	r.send(arpRequest(tapstack.GatewayAddr()))
	if got := r.receive(); got[12] != 0x08 || got[13] != 0x06 {
		t.Errorf("a group is answered for: % x", got)
	}
}

func TestEcho6(t *testing.T) {
	t.Parallel()
	r, came := echoes(t)
	to := outside6(0).Addr()
	request := ping6(to)
	r.send(request)
	e := <-came
	if e.Destination != to || e.Hops != 254 || string(e.Payload) != "p" {
		t.Fatalf("handed over: %+v", e)
	}
	e.Reply(e.Payload)
	got := r.receive()
	sum := tapstacktest.Checksum(0, append(tapstacktest.Pseudo(to, tapstack.EnclaveAddr6(), protocolICMPv6, len(got)-behindIPv6), got[behindIPv6:]...))
	if len(got) != behindIPv6+9 || got[behindIPv6] != echoReply6 || sum != 0 || !bytes.Equal(got[behindIPv6+4:], request[behindIPv6+4:]) {
		t.Errorf("reply % x, checksum %x", got, sum)
	}
	e.Fail(netip.Addr{}, e.OwnError(netstack.TimeExceeded))
	got = r.receive()
	if from := netip.AddrFrom16([16]byte(got[22:])); got[behindIPv6] != 3 || from != tapstack.GatewayAddr6() || !bytes.Equal(got[behindIPv6+8:], request[14:][:48]) {
		t.Errorf("error of %s: % x", from, got)
	}
}
