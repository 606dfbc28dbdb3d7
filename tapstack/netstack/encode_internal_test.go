package netstack

import (
	"bytes"
	"encoding/binary"
	"io"
	"slices"
	"testing"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/corridor-enclave/corridor/tapstack"
)

// packet builds a packet as the stack does: with more header room reserved than
// is used, and its payload in a view of its own.
func packet(headers, data []byte) *stack.PacketBuffer {
	p := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: len(headers) + 40,
		Payload:            buffer.MakeWithData(data),
	})
	copy(p.LinkHeader().Push(len(headers)), headers)
	return p
}

func numbered(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i + 1)
	}
	return b
}

// segment builds a TCP segment of an established connection.
func segment(data []byte, mss uint16) *stack.PacketBuffer {
	p := stack.NewPacketBuffer(stack.PacketBufferOptions{ReserveHeaderBytes: 200, Payload: buffer.MakeWithData(data)})
	tcp := header.TCP(p.TransportHeader().Push(header.TCPMinimumSize))
	tcp.Encode(&header.TCPFields{SeqNum: 7, DataOffset: header.TCPMinimumSize, Flags: header.TCPFlagAck})
	p.TransportProtocolNumber = header.TCPProtocolNumber
	length := p.Size()
	ip := header.IPv4(p.NetworkHeader().Push(header.IPv4MinimumSize))
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(p.Size()), TTL: 64, Protocol: uint8(header.TCPProtocolNumber),
		SrcAddr: stackAddr(tapstack.GatewayAddr()), DstAddr: stackAddr(tapstack.EnclaveAddr()),
	})
	ip.SetChecksum(^ip.CalculateChecksum())
	tcp.SetChecksum(header.PseudoHeaderChecksum(header.TCPProtocolNumber, ip.SourceAddress(), ip.DestinationAddress(), uint16(length)))
	p.NetworkProtocolNumber = header.IPv4ProtocolNumber
	header.Ethernet(p.LinkHeader().Push(header.EthernetMinimumSize)).Encode(&header.EthernetFields{Type: header.IPv4ProtocolNumber})
	p.GSOOptions = stack.GSO{
		Type: stack.GSOTCPv4, NeedsCsum: true, CsumOffset: header.TCPChecksumOffset, MSS: mss, L3HdrLen: header.IPv4MinimumSize,
	}
	return p
}

// peers are the kinds of enclave that there are.
func peers() map[string]Peer {
	offload := tapstack.Capabilities{Offload: true, MaxFrame: tapstack.MaxFrame, MTU: 1500}
	noOffload := tapstack.Capabilities{MaxFrame: 1514, MTU: 1500}
	return map[string]Peer{
		"extended":                 {Framing: tapstack.Extended, Takes: offload},
		"extended without offload": {Framing: tapstack.Extended, Takes: noOffload},
		"plain":                    {Takes: tapstack.PlainPeer()},
		"plain of large frames":    {Takes: tapstack.Capabilities{MaxFrame: tapstack.MaxFrame, MTU: 1500}},
	}
}

// TestEncode: whatever kind the peer is, it reads frames that it takes, with all
// of the payload in them.
func TestEncode(t *testing.T) {
	t.Parallel()
	for name, peer := range peers() {
		for _, inPlace := range []bool{false, true} {
			// One after the other in one piece, small ones between large ones.
			e := newEncoder(peer, inPlace)
			var all []byte
			n := 0
			for _, size := range []int{0, 1, 40000, 1460, 1461, 65374} {
				p := segment(numbered(size), 1460)
				defer p.DecRef() // the encoder refers to its payload
				n += e.add(p)
				all = append(all, numbered(size)...)
			}
			stream := slices.Concat(e.gathered()...)
			if len(stream) != e.size() {
				t.Errorf("%s: %d bytes, and size says %d", name, len(stream), e.size())
			}
			checkFrames(t, name, stream, n, peer, all)
		}
	}
}

// checkFrames fails unless the stream has n frames that the peer takes, with this
// payload in all.
func checkFrames(t *testing.T, name string, stream []byte, n int, peer Peer, want []byte) {
	t.Helper()
	frames := tapstack.NewFrameReader(bytes.NewReader(stream), peer.Framing, peer.Takes.MaxFrame)
	var got []byte
	for i := range n {
		frame, err := frames.Next()
		if err != nil {
			t.Fatalf("%s: frame %d: %v", name, i, err)
		}
		if err := tapstack.CheckOffload(frame); err != nil {
			t.Errorf("%s: frame %d: %v", name, i, err)
		}
		if !peer.Takes.Offload {
			checkFinished(t, frame)
		}
		got = append(got, frame[tapstack.OffloadHeader+54:]...)
	}
	if _, err := frames.Next(); err != io.EOF {
		t.Errorf("%s: behind %d frames is %v, want io.EOF", name, n, err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes of payload arrive as %d others", name, len(want), len(got))
	}
}

// TestEncoderLeavesLargePayloadsInPlace: what is copied does not grow with them.
func TestEncoderLeavesLargePayloadsInPlace(t *testing.T) {
	t.Parallel()
	e := newEncoder(peers()["extended"], true)
	p := segment(make([]byte, 60000), 1460)
	defer p.DecRef()
	e.add(p)
	e.add(p)
	if len(e.buf) > 256 || e.size() < 120000 {
		t.Errorf("of %d bytes %d were copied", e.size(), len(e.buf))
	}
	if e.reset(); e.size() != 0 || len(e.gathered()) != 0 {
		t.Errorf("after reset: %d bytes in %d pieces", e.size(), len(e.gathered()))
	}
}

// checkFinished fails unless nothing is left to do with the frame.
func checkFinished(t *testing.T, frame []byte) {
	t.Helper()
	if !bytes.Equal(frame[:tapstack.OffloadHeader], make([]byte, tapstack.OffloadHeader)) {
		t.Errorf("the virtio-net header is % x, want zeros", frame[:tapstack.OffloadHeader])
	}
	ip := header.IPv4(frame[tapstack.OffloadHeader+tapstack.MinFrame:])
	tcp := header.TCP(ip.Payload())
	sum := checksum.Checksum(tcp.Payload(), 0)
	if !ip.IsChecksumValid() || !tcp.IsChecksumValid(ip.SourceAddress(), ip.DestinationAddress(), sum, uint16(len(tcp.Payload()))) {
		t.Error("a checksum is wrong")
	}
}

func TestEncodeLeavesOutWhatIsTooLong(t *testing.T) {
	t.Parallel()
	for name, peer := range peers() {
		p := packet(numbered(42), make([]byte, tapstack.MaxFrame-41)) // not to be segmented
		e := newEncoder(peer, true)
		if n := e.add(p); n != 0 || e.size() != 0 {
			t.Errorf("%s: a frame of %d bytes became %d", name, p.Size(), n)
		}
		p.DecRef()
	}
}

func TestEncodeAllocatesNothing(t *testing.T) {
	for name, peer := range peers() {
		for _, inPlace := range []bool{false, true} {
			p := segment(make([]byte, 60000), 1460)
			e := newEncoder(peer, inPlace)
			n := testing.AllocsPerRun(100, func() {
				e.reset()
				e.add(p)
				e.gathered()
			})
			if n != 0 {
				t.Errorf("%s: encoding allocates %v times, want 0", name, n)
			}
			p.DecRef()
		}
	}
}

func TestOffloadHeaderSaysWhatIsLeft(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		size int
		gso  byte
		mss  uint16
	}{{0, 0, 0}, {1460, 0, 0}, {1461, 1, 1460}} {
		p := segment(make([]byte, tt.size), 1460)
		got := appendOffload(nil, p)
		p.DecRef()
		want := []byte{1, tt.gso, 54, 0, byte(tt.mss), byte(tt.mss >> 8), 34, 0, 16, 0}
		if !bytes.Equal(got, want) {
			t.Errorf("%d bytes: header is % x, want % x", tt.size, got, want)
		}
	}
	p := packet(numbered(42), nil) // a datagram: nothing is left
	defer p.DecRef()
	if got := appendOffload(nil, p); binary.LittleEndian.Uint64(got) != 0 {
		t.Errorf("header of a datagram is % x, want zeros", got)
	}
}
