package gateway_test

import (
	"bytes"
	"net/netip"
	"os"
	"testing"

	"github.com/corridor-enclave/corridor/host/gateway"
	"github.com/corridor-enclave/corridor/host/ping"
	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/tap"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

// TestIntegrationPing: the kernel of the enclave's namespace pings, by way of a TAP,
// the link and the kernel's ping sockets, what the host's namespace reaches, with
// short and with fragmented packets.
func TestIntegrationPing(t *testing.T) {
	tapstacktest.RequireTAP(t)
	s := newSite(t, gateway.Config{HostLoopback: true})
	open := func() *ping.Socket {
		t.Helper()
		if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 2147483647"), 0); err != nil {
			t.Fatal(err)
		}
		socket, err := ping.Open(false)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { socket.Close() })
		return socket
	}
	tapstacktest.PrivateNetwork(t)
	if err := tap.LoopbackUp(); err != nil {
		t.Fatal(err)
	}
	outside := open()
	s.gateway.SetPing(func(bool) (gateway.Pinger, error) { return outside, nil })
	s.runKernelLink(1) // from here on the test is in the enclave
	inside := open()
	alias := tapstack.HostAliasAddr()
	for sequence, payload := range [][]byte{[]byte("hello"), nil, bytes.Repeat([]byte("0123456789"), 2000), make([]byte, 65507)} {
		if err := inside.Send(alias, 64, uint16(sequence), payload); err != nil {
			t.Fatal(err)
		}
		a, err := inside.Receive()
		if err != nil || a.Failed || a.From != alias || a.Sequence != uint16(sequence) || !bytes.Equal(a.Payload, payload) {
			t.Errorf("answer %d of %s with %d bytes, failed %t, %v", a.Sequence, a.From, len(a.Payload), a.Failed, err)
		}
	}
	// The namespace of the host has a way to nowhere but itself, and one hop is the gateway's.
	for _, tt := range []struct {
		to   string
		hops int
		want ping.Answer
	}{
		{"198.51.100.1", 64, ping.Answer{Type: 3, Code: 0}},
		{"169.254.169.254", 64, ping.Answer{Type: 3, Code: 13}},
		{"198.51.100.1", 1, ping.Answer{Type: 11, Code: 0}},
	} {
		to := netip.MustParseAddr(tt.to)
		if err := inside.Send(to, tt.hops, 9, nil); err != nil {
			t.Fatal(err)
		}
		a, err := inside.Receive()
		if err != nil || !a.Failed || a.To != to || a.From != tapstack.GatewayAddr() || a.Type != tt.want.Type || a.Code != tt.want.Code {
			t.Errorf("%s with %d hops: %+v, %v", to, tt.hops, a, err)
		}
	}
}
