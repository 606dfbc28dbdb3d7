package ping

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/tap"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what only a broken kernel or a broken test would wait for.
const patience = 20 * time.Second

// permit moves the test into a network of its own and says who may open ping sockets.
func permit(t *testing.T, groups string) {
	t.Helper()
	tapstacktest.PrivateNetwork(t)
	if err := tap.LoopbackUp(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte(groups), 0); err != nil {
		t.Fatal(err)
	}
}

func mustOpen(t *testing.T, is6 bool) *Socket {
	t.Helper()
	s, err := Open(is6)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// receive is Receive within patience.
func receive(t *testing.T, s *Socket) Answer {
	t.Helper()
	if err := s.file.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	a, err := s.Receive()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestIntegrationNotPermitted(t *testing.T) {
	permit(t, "1 0")
	for _, is6 := range []bool{false, true} {
		s, err := Open(is6)
		if s != nil || !errors.Is(err, ErrNotPermitted) || !strings.Contains(err.Error(), "sysctl -w") {
			t.Errorf("Open(%t) = %v, %v; want ErrNotPermitted with the remedy", is6, s, err)
		}
	}
}

func TestIntegrationReplies(t *testing.T) {
	permit(t, "0 2147483647")
	for addr, long := range map[string]int{"127.0.0.1": 65507, "127.9.9.9": 65507, "::1": 65487} {
		to := netip.MustParseAddr(addr)
		s := mustOpen(t, to.Is6())
		for sequence, payload := range [][]byte{[]byte("hello"), nil, bytes.Repeat([]byte("x"), long)} {
			if err := s.Send(to, 64, uint16(sequence), payload); err != nil {
				t.Fatalf("%s: %v", addr, err)
			}
			a := receive(t, s)
			if a.Failed || a.Sequence != uint16(sequence) || a.From != to || !bytes.Equal(a.Payload, payload) {
				t.Errorf("%s: answer %d of %s with %d bytes, failed %t", addr, a.Sequence, a.From, len(a.Payload), a.Failed)
			}
		}
		if s.in.giveBack(); s.in.buf != nil || cap(s.out) > keptMessage {
			t.Errorf("%s: a silent socket keeps memory", addr)
		}
	}
}

// TestIntegrationNoRoute: who has no way there is told at once.
func TestIntegrationNoRoute(t *testing.T) {
	permit(t, "0 2147483647")
	for _, addr := range []string{"198.51.100.1", "2001:db8::1"} {
		to := netip.MustParseAddr(addr)
		if err := mustOpen(t, to.Is6()).Send(to, 64, 1, nil); err == nil {
			t.Errorf("an echo request to %s was sent nowhere", addr)
		}
	}
}

// TestIntegrationErrors: the test is the router of the namespace, and refuses what
// the socket sends.
func TestIntegrationErrors(t *testing.T) {
	tapstacktest.RequireTAP(t)
	permit(t, "0 2147483647")
	device, err := tap.Open("tap0", tap.Options{NoOffload: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { device.Close() })
	if err := tap.Configure(tap.Settings{Name: "tap0", MAC: tapstack.EnclaveMAC(), GatewayMAC: tapstack.GatewayMAC()}); err != nil {
		t.Fatal(err)
	}
	s, to, router := mustOpen(t, false), netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("203.0.113.1")
	const timeExceeded, unreachable, prohibited = 11, 3, 13
	for sequence, kind := range [][2]byte{{timeExceeded, 0}, {unreachable, prohibited}, {timeExceeded, 0}} {
		if err := s.Send(to, 3+sequence, uint16(sequence), []byte("hello")); err != nil {
			t.Fatal(err)
		}
		request := nextEcho(t, device)
		if hops := request[8]; int(hops) != 3+sequence {
			t.Errorf("request %d may take %d hops", sequence, hops)
		}
		message := append([]byte{kind[0], kind[1], 0, 0, 0, 0, 0, 0}, request...)
		binary.BigEndian.PutUint16(message[2:], tapstacktest.Checksum(0, message))
		frame := tapstacktest.Ethernet(tapstack.EnclaveMAC(), tapstack.GatewayMAC(), tapstacktest.EtherTypeIPv4,
			tapstacktest.IPv4(tapstacktest.ProtocolICMP, router, tapstack.EnclaveAddr(), message))
		if err := device.WriteFrame(append(make([]byte, tapstack.OffloadHeader), frame...)); err != nil {
			t.Fatal(err)
		}
		want := Answer{Failed: true, Type: kind[0], Code: kind[1], From: router, To: to, Sequence: uint16(sequence)}
		if a := receive(t, s); !reflect.DeepEqual(a, want) {
			t.Errorf("answer %+v, want %+v", a, want)
		}
	}
}

// nextEcho is the IP packet of the next echo request that the kernel sends.
func nextEcho(t *testing.T, device *tap.Device) []byte {
	t.Helper()
	batch := tapstack.NewBatch(tapstack.Plain)
	for {
		batch.Reset(tapstack.Plain)
		if err := device.ReadFrames(batch); err != nil {
			t.Fatal(err)
		}
		frames := tapstack.NewFrameReader(bytes.NewReader(batch.Unsent()), tapstack.Plain, tapstack.MaxFrame)
		for frame, err := frames.Next(); err == nil; frame, err = frames.Next() {
			packet := frame[tapstack.OffloadHeader+14:]
			if packet[0]>>4 == 4 && packet[9] == tapstacktest.ProtocolICMP && packet[20] == request4 {
				return bytes.Clone(packet)
			}
		}
	}
}

func TestIntegrationCloseWakes(t *testing.T) {
	permit(t, "0 2147483647")
	s := mustOpen(t, false)
	done := make(chan error, 1)
	go func() {
		_, err := s.Receive()
		done <- err
	}()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Receive at Close = %v, want net.ErrClosed", err)
	}
	if err := s.Send(netip.MustParseAddr("127.0.0.1"), 64, 1, nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Send after Close = %v, want net.ErrClosed", err)
	}
}

// FuzzParseError: what the kernel attaches is taken apart within its bounds.
func FuzzParseError(f *testing.F) {
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, control []byte) {
		if a, ok := parseError(control); ok != a.Failed {
			t.Errorf("%t, but %+v", ok, a)
		}
	})
}
