package netstack

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/corridor-enclave/corridor/tapstack"
)

// uplinkSegment is a TCP segment of the enclave, with its Ethernet header.
func uplinkSegment(port uint16, seq uint32, data []byte, change ...func(header.IPv4, header.TCP)) []byte {
	frame := make([]byte, tcpOptions+12, tcpOptions+12+len(data)) // 12: time stamps, as Linux sends them
	frame = append(frame, data...)
	header.Ethernet(frame).Encode(&header.EthernetFields{Type: header.IPv4ProtocolNumber})
	ip := header.IPv4(frame[ipHeader:])
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(len(ip)), ID: uint16(seq), Flags: header.IPv4FlagDontFragment, TTL: 64, Protocol: uint8(header.TCPProtocolNumber),
		SrcAddr: stackAddr(tapstack.EnclaveAddr()), DstAddr: stackAddr(tapstack.GatewayAddr()),
	})
	tcp := header.TCP(frame[tcpHeader:])
	tcp.Encode(&header.TCPFields{SrcPort: port, DstPort: 80, SeqNum: seq, AckNum: 1, DataOffset: 32, Flags: header.TCPFlagAck, WindowSize: 500})
	ip.SetChecksum(^ip.CalculateChecksum())
	for _, f := range change {
		f(ip, tcp)
	}
	return frame
}

// coalesced is what becomes of frames that were read together.
func coalesced(frames ...[]byte) [][]byte {
	var out [][]byte
	c := newCoalescer(func(frame []byte) { out = append(out, slices.Clone(frame)) })
	for i, frame := range frames {
		c.add(frame, i < len(frames)-1)
	}
	return out
}

// TestCoalescerLeavesOthersAlone: what is not surely the continuation stays by
// itself.
func TestCoalescerLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	data := numbered(1000)
	renew := func(ip header.IPv4) { ip.SetChecksum(0); ip.SetChecksum(^ip.CalculateChecksum()) }
	tests := map[string][]byte{
		"a gap":               uplinkSegment(1, 1001, data),
		"sent again":          uplinkSegment(1, 0, data),
		"another port":        uplinkSegment(2, 1000, data),
		"another TTL":         uplinkSegment(1, 1000, data, func(ip header.IPv4, _ header.TCP) { ip[8] = 63; renew(ip) }),
		"another TOS":         uplinkSegment(1, 1000, data, func(ip header.IPv4, _ header.TCP) { ip.SetTOS(3, 0); renew(ip) }),
		"a fragment":          uplinkSegment(1, 1000, data, func(ip header.IPv4, _ header.TCP) { ip.SetFlagsFragmentOffset(1, 0); renew(ip) }),
		"IP options":          uplinkSegment(1, 1000, data, func(ip header.IPv4, _ header.TCP) { ip[0] = 0x46; renew(ip) }),
		"a wrong IP sum":      uplinkSegment(1, 1000, data, func(ip header.IPv4, _ header.TCP) { ip.SetChecksum(ip.Checksum() + 1) }),
		"a length too small":  uplinkSegment(1, 1000, data, func(ip header.IPv4, _ header.TCP) { ip.SetTotalLength(1000); renew(ip) }),
		"another ack":         uplinkSegment(1, 1000, data, func(_ header.IPv4, tcp header.TCP) { tcp.SetAckNumber(2) }),
		"another window":      uplinkSegment(1, 1000, data, func(_ header.IPv4, tcp header.TCP) { tcp.SetWindowSize(501) }),
		"another time":        uplinkSegment(1, 1000, data, func(_ header.IPv4, tcp header.TCP) { tcp[30] = 1 }),
		"FIN":                 uplinkSegment(1, 1000, data, func(_ header.IPv4, tcp header.TCP) { tcp.SetFlags(uint8(header.TCPFlagAck | header.TCPFlagFin)) }),
		"a wrong data offset": uplinkSegment(1, 1000, data, func(_ header.IPv4, tcp header.TCP) { tcp[12] = 0x40 }),
		"headers beyond it":   uplinkSegment(1, 1000, nil, func(_ header.IPv4, tcp header.TCP) { tcp[12] = 0xf0 }),
		"no payload":          uplinkSegment(1, 1000, nil),
		"larger":              uplinkSegment(1, 1000, numbered(1001)),
		"no IP":               make([]byte, 60),
		"short":               make([]byte, 14),
	}
	first := uplinkSegment(1, 0, data)
	for name, second := range tests {
		if got := coalesced(first, second); len(got) != 2 || !bytes.Equal(got[1], second) || !bytes.Equal(got[0][tcpHeader:], first[tcpHeader:]) {
			t.Errorf("%s: %d frames, changed", name, len(got))
		}
	}
	pushed := uplinkSegment(1, 0, data, func(_ header.IPv4, tcp header.TCP) { tcp.SetFlags(uint8(header.TCPFlagAck | header.TCPFlagPsh)) })
	if got := coalesced(pushed, uplinkSegment(1, 1000, data)); len(got) != 2 {
		t.Error("what follows PSH is joined to it")
	}
}

// TestCoalescerJoins what follows, up to the longest packet, and ends with what is
// shorter.
func TestCoalescerJoins(t *testing.T) {
	t.Parallel()
	var frames [][]byte
	var want []byte
	for n := range 60 { // more than fit into one packet
		data := numbered(1448)
		if n == 59 {
			data = data[:7]
		}
		frames = append(frames, uplinkSegment(1, uint32(len(want)), data))
		want = append(want, data...)
	}
	joined := coalesced(frames...)
	if len(joined) != 2 {
		t.Fatalf("%d segments became %d frames, want 2", len(frames), len(joined))
	}
	var got []byte
	for _, frame := range joined {
		ip := header.IPv4(frame[ipHeader:])
		if !ip.IsValid(len(ip)) || !ip.IsChecksumValid() || int(ip.TotalLength()) != len(ip) {
			t.Errorf("a frame of %d bytes has a wrong IP header", len(frame))
		}
		if seq := header.TCP(frame[tcpHeader:]).SequenceNumber(); int(seq) != len(got) {
			t.Errorf("sequence number %d, want %d", seq, len(got))
		}
		got = append(got, frame[tcpOptions+12:]...)
	}
	if !bytes.Equal(got, want) {
		t.Error("the payload changed")
	}
	if got := coalesced(frames[0]); len(got) != 1 || !bytes.Equal(got[0], frames[0]) {
		t.Error("a frame alone is not what was sent")
	}
}

// TestCoalescerKeepsStreams: whatever comes between whatever, the bytes of each flow
// come in their order, and all of them.
func TestCoalescerKeepsStreams(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	sent, got := map[uint16][]byte{}, map[uint16][]byte{}
	c := newCoalescer(func(frame []byte) {
		tcp := header.TCP(frame[tcpHeader:])
		if int(tcp.SequenceNumber()) != len(got[tcp.SourcePort()]) {
			t.Fatalf("flow %d: byte %d comes where %d should", tcp.SourcePort(), tcp.SequenceNumber(), len(got[tcp.SourcePort()]))
		}
		got[tcp.SourcePort()] = append(got[tcp.SourcePort()], frame[tcpOptions+12:]...)
	})
	port := uint16(1)
	for n := range 5000 {
		if r.IntN(5) == 0 {
			port = uint16(1 + r.IntN(3))
		}
		data := binary.BigEndian.AppendUint32(make([]byte, r.IntN(2)*r.IntN(1400)), uint32(n))
		frame := uplinkSegment(port, uint32(len(sent[port])), data)
		if r.IntN(20) == 0 {
			header.TCP(frame[tcpHeader:]).SetFlags(uint8(header.TCPFlagAck | header.TCPFlagPsh))
		}
		sent[port] = append(sent[port], data...)
		c.add(frame, r.IntN(10) != 0)
		clear(frame) // it is good for the call only
	}
	c.flush()
	for port := range sent {
		if !bytes.Equal(sent[port], got[port]) {
			t.Errorf("flow %d: %d bytes became %d others", port, len(sent[port]), len(got[port]))
		}
	}
}

func TestCoalescerAllocatesNothing(t *testing.T) {
	c := newCoalescer(func([]byte) {})
	frames := [][]byte{uplinkSegment(1, 0, numbered(1448)), uplinkSegment(1, 1448, numbered(1448)), uplinkSegment(1, 2896, numbered(9))}
	n := testing.AllocsPerRun(100, func() {
		for _, frame := range frames {
			c.add(frame, true)
		}
	})
	if n != 0 {
		t.Errorf("joining allocates %v times, want 0", n)
	}
}

// FuzzCoalescer: no two frames of an enclave crash the host, and none gets lost.
func FuzzCoalescer(f *testing.F) {
	f.Add(uplinkSegment(1, 0, numbered(100)), uplinkSegment(1, 100, numbered(100)))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		if len(a) < tapstack.MinFrame || len(b) < tapstack.MinFrame || len(a) > tapstack.MaxFrame || len(b) > tapstack.MaxFrame {
			return
		}
		out := coalesced(a, b)
		switch {
		case len(out) == 2 && bytes.Equal(out[0][:ipHeader], a[:ipHeader]) && len(out[0]) == len(a) && bytes.Equal(out[1], b):
		case len(out) == 1 && len(out[0]) > len(a) && len(out[0]) < len(a)+len(b):
		default:
			t.Fatalf("%d and %d bytes became %d frames", len(a), len(b), len(out))
		}
	})
}
