package tapstack_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

// Where things are in a frame with its virtio-net header in front.
const (
	atFlags, atGSO, atHeaderLen, atSize, atStart, atField = 0, 1, 2, 4, 6, 8

	atIP  = tapstack.OffloadHeader + tapstack.MinFrame
	atTCP = atIP + 20
)

// offloaded returns a TCP frame over IPv4 as a kernel leaves it for its device:
// pseudo-header sum only, to be cut into segments of size bytes if that is not 0.
func offloaded(payload []byte, size uint16) []byte {
	src, dst := netip.AddrPortFrom(tapstack.GatewayAddr(), 80), netip.AddrPortFrom(tapstack.EnclaveAddr(), 40000)
	segment := tapstacktest.TCP(src, dst, 1000, tapstacktest.FlagACK|tapstacktest.FlagPSH|tapstacktest.FlagFIN, payload)
	leaveSum(segment, src.Addr(), dst.Addr(), tapstacktest.ProtocolTCP, 16)
	packet := tapstacktest.IPv4(tapstacktest.ProtocolTCP, src.Addr(), dst.Addr(), segment)
	frame := tapstacktest.Ethernet(tapstack.EnclaveMAC(), tapstack.GatewayMAC(), tapstacktest.EtherTypeIPv4, packet)
	gso := byte(0)
	if size != 0 {
		gso = 1
	}
	return withHeader(frame, gso, size, 34, 16, 54)
}

// offloaded6 is the same over IPv6.
func offloaded6(payload []byte, size uint16) []byte {
	src, dst := netip.MustParseAddrPort("[fd00::1]:80"), netip.MustParseAddrPort("[fd00::2]:40000")
	segment := tapstacktest.TCP(src, dst, 1000, tapstacktest.FlagACK, payload)
	leaveSum(segment, src.Addr(), dst.Addr(), tapstacktest.ProtocolTCP, 16)
	packet := tapstacktest.IPv6(tapstacktest.ProtocolTCP, src.Addr(), dst.Addr(), segment)
	frame := tapstacktest.Ethernet(tapstack.EnclaveMAC(), tapstack.GatewayMAC(), tapstacktest.EtherTypeIPv6, packet)
	return withHeader(frame, 4, size, 54, 16, 74)
}

// offloadedUDP is a datagram whose checksum is left to the device.
func offloadedUDP(payload []byte) []byte {
	src, dst := netip.AddrPortFrom(tapstack.EnclaveAddr(), 5000), netip.AddrPortFrom(tapstack.GatewayAddr(), 53)
	datagram := tapstacktest.UDP(src, dst, payload)
	leaveSum(datagram, src.Addr(), dst.Addr(), tapstacktest.ProtocolUDP, 6)
	packet := tapstacktest.IPv4(tapstacktest.ProtocolUDP, src.Addr(), dst.Addr(), datagram)
	frame := tapstacktest.Ethernet(tapstack.GatewayMAC(), tapstack.EnclaveMAC(), tapstacktest.EtherTypeIPv4, packet)
	return withHeader(frame, 0, 0, 34, 6, 42)
}

// leaveSum puts the sum of the pseudo-header where the checksum belongs.
func leaveSum(segment []byte, src, dst netip.Addr, protocol byte, field int) {
	sum := ^tapstacktest.Checksum(0, tapstacktest.Pseudo(src, dst, protocol, len(segment)))
	binary.BigEndian.PutUint16(segment[field:], sum)
}

func withHeader(frame []byte, gso byte, size, start, field, end uint16) []byte {
	header := []byte{1, gso}
	for _, n := range []uint16{end, size, start, field} {
		header = binary.LittleEndian.AppendUint16(header, n)
	}
	return append(header, frame...)
}

// plain returns a frame with nothing left to do.
func plain(frame []byte) []byte { return append(make([]byte, tapstack.OffloadHeader), frame...) }

func TestCheckOffloadRefuses(t *testing.T) {
	t.Parallel()
	tcp := func() []byte { return offloaded(make([]byte, 3000), 1460) }
	put := func(at int, n uint16) func([]byte) []byte {
		return func(b []byte) []byte { binary.LittleEndian.PutUint16(b[at:], n); return b }
	}
	set := func(at int, v byte) func([]byte) []byte { return func(b []byte) []byte { b[at] = v; return b } }
	tests := []struct {
		name   string
		frame  []byte
		change func([]byte) []byte
	}{
		{"nothing at all", nil, nil},
		{"no whole Ethernet header", make([]byte, tapstack.OffloadHeader+13), nil},
		{"unknown flag", tcp(), set(atFlags, 1|4)},
		{"unknown segmentation", tcp(), set(atGSO, 3)},
		{"segmentation with ECN", tcp(), set(atGSO, 1|0x80)},
		{"segmentation of datagrams", tcp(), set(atGSO, 5)},
		{"segmentation of another family", tcp(), set(atGSO, 4)},
		{"segmentation without the checksum", tcp(), set(atFlags, 0)},
		{"segmentation of UDP", offloadedUDP(make([]byte, 3000)), set(atGSO, 1)},
		{"segments of nothing", tcp(), put(atSize, 0)},
		{"segments too small", tcp(), put(atSize, 495)},
		{"checksum from before the segment", tcp(), put(atStart, 33)},
		{"checksum from behind the frame", tcp(), put(atStart, 0xffff)},
		{"checksum in another field", tcp(), put(atField, 6)},
		{"checksum behind the frame", tcp(), put(atField, 0xffff)},
		{"ARP", plain(tapstacktest.ARPRequest(tapstack.EnclaveMAC(), tapstack.EnclaveAddr(), tapstack.GatewayAddr())), set(atFlags, 1)},
		{"ICMP", tcp(), set(atIP+9, tapstacktest.ProtocolICMP)},
		{"VLAN", tcp(), set(atIP-2, 0x81)},
		{"version 6 in a frame of IPv4", tcp(), set(atIP, 0x65)},
		{"IP header too short", tcp(), set(atIP, 0x44)},
		{"IP header behind the frame", offloaded(nil, 0), set(atIP, 0x4f)},
		{"IP length of another packet", tcp(), set(atIP+3, 1)},
		{"more fragments", tcp(), set(atIP+6, 0x20)},
		{"a later fragment", tcp(), set(atIP+7, 1)},
		{"TCP header too short", tcp(), set(atTCP+12, 4<<4)},
		{"TCP header behind the frame", offloaded(nil, 0), set(atTCP+12, 15<<4)},
		{"cut inside IP", tcp()[:atIP+19], nil},
		{"cut inside TCP", tcp()[:atTCP+19], nil},
		{"IPv6 length of another packet", offloaded6(make([]byte, 3000), 1440), set(atIP+5, 1)},
		{"IPv6 with an extension header", offloaded6(make([]byte, 3000), 1440), set(atIP+6, 0)},
		{"version 4 in a frame of IPv6", offloaded6(make([]byte, 3000), 1440), set(atIP, 0x45)},
		{"cut inside IPv6", offloaded6(nil, 1440)[:atIP+39], nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			frame := tt.frame
			if tt.change != nil {
				if err := tapstack.CheckOffload(bytes.Clone(frame)); err != nil && tt.name != "ARP" {
					t.Fatalf("the frame is refused without its mistake: %v", err)
				}
				frame = tt.change(frame)
			}
			var reason tapstack.OffloadError
			if err := tapstack.CheckOffload(frame); !errors.As(err, &reason) {
				t.Errorf("CheckOffload = %v, want an OffloadError", err)
			}
		})
	}
}

func TestCheckOffloadAccepts(t *testing.T) {
	t.Parallel()
	arp := tapstacktest.ARPRequest(tapstack.EnclaveMAC(), tapstack.EnclaveAddr(), tapstack.GatewayAddr())
	tests := []struct {
		name  string
		frame []byte
		want  []byte // the header
	}{
		{"nothing left to do", plain(arp), make([]byte, 10)},
		{"verified by the sender", append([]byte{2, 0, 9, 9, 9, 9, 9, 9, 9, 9}, arp...), make([]byte, 10)},
		{"a checksum to finish", offloaded([]byte("x"), 0), []byte{1, 0, 54, 0, 0, 0, 34, 0, 16, 0}},
		{"segments of IPv4", offloaded(make([]byte, 3000), 1460), []byte{1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0}},
		{"segments of IPv6", offloaded6(make([]byte, 3000), 1440), []byte{1, 4, 74, 0, 0xa0, 5, 54, 0, 16, 0}},
		{"a datagram", offloadedUDP([]byte("x")), []byte{1, 0, 42, 0, 0, 0, 34, 0, 6, 0}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			body := bytes.Clone(tt.frame[tapstack.OffloadHeader:])
			if tt.frame[atFlags] == 1 { // what nobody checks is set, not passed on
				binary.LittleEndian.PutUint16(tt.frame[atHeaderLen:], 0xffff)
			}
			if err := tapstack.CheckOffload(tt.frame); err != nil {
				t.Fatal(err)
			}
			if got := tt.frame[:tapstack.OffloadHeader]; !bytes.Equal(got, tt.want) {
				t.Errorf("header is % x, want % x", got, tt.want)
			}
			if !bytes.Equal(tt.frame[tapstack.OffloadHeader:], body) {
				t.Error("the frame behind the header was changed")
			}
		})
	}
}

// checkPlain fails unless b is whole plain frames of at most limit bytes, with
// right checksums; it returns them.
func checkPlain(t *testing.T, b []byte, limit int) (frames [][]byte) {
	t.Helper()
	for len(b) > 0 {
		n := int(binary.LittleEndian.Uint16(b))
		if n > limit || n > len(b)-2 {
			t.Fatalf("a frame of %d bytes with %d behind it, limit %d", n, len(b)-2, limit)
		}
		frame := b[2 : 2+n]
		frames, b = append(frames, frame), b[2+n:]
		packet := frame[tapstack.MinFrame:]
		protocol, segment, pseudo := byte(0), packet, []byte(nil)
		if frame[12] == 8 {
			protocol, segment = packet[9], packet[20:]
			if got := tapstacktest.Checksum(0, packet[:20]); got != 0 {
				t.Errorf("IPv4 header sums to %#x, want 0", got)
			}
			pseudo = tapstacktest.Pseudo(netip.AddrFrom4([4]byte(packet[12:])), netip.AddrFrom4([4]byte(packet[16:])), protocol, len(segment))
		} else {
			protocol, segment = packet[6], packet[40:]
			pseudo = tapstacktest.Pseudo(netip.AddrFrom16([16]byte(packet[8:])), netip.AddrFrom16([16]byte(packet[24:])), protocol, len(segment))
		}
		if got := tapstacktest.Checksum(0, append(pseudo, segment...)); got != 0 {
			t.Errorf("protocol %d: segment of %d bytes sums to %#x, want 0", protocol, len(segment), got)
		}
	}
	return frames
}

func TestAppendFinishedSegments(t *testing.T) {
	t.Parallel()
	payload := make([]byte, 5001)
	for i := range payload {
		payload[i] = byte(i * 7)
	}
	for name, frame := range map[string][]byte{"IPv4": offloaded(payload, 1448), "IPv6": offloaded6(payload, 1440)} {
		out, n := tapstack.AppendFinished(nil, bytes.Clone(frame), tapstack.Plain, 1514)
		frames := checkPlain(t, out, 1514)
		if n != 4 || len(frames) != 4 {
			t.Fatalf("%s: %d frames said, %d found, want 4", name, n, len(frames))
		}
		var got []byte
		for i, f := range frames {
			tcp := f[34:]
			if name == "IPv6" {
				tcp = f[54:]
			}
			if sequence := binary.BigEndian.Uint32(tcp[4:]); sequence != 1000+uint32(len(got)) {
				t.Errorf("%s: segment %d has sequence number %d, want %d", name, i, sequence, 1000+len(got))
			}
			if last := i == len(frames)-1; last != (tcp[13]&tapstacktest.FlagFIN != 0) && name == "IPv4" {
				t.Errorf("%s: segment %d has flags %#x", name, i, tcp[13])
			}
			got = append(got, tcp[20:]...)
		}
		if !bytes.Equal(got, payload) {
			t.Errorf("%s: the payload changed on the way", name)
		}
	}
}

func TestAppendFinished(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		frame []byte
		limit int
		want  int
	}{
		{"fits", offloaded([]byte("hello"), 0), 1514, 1},
		{"a datagram fits", offloadedUDP([]byte("hello")), 1514, 1},
		{"fits a peer of large frames uncut", offloaded(make([]byte, 60000), 1460), tapstack.MaxFrame, 1},
		{"a datagram does not fit", offloadedUDP(make([]byte, 2000)), 1514, 0},
		{"no room for any payload", offloaded(make([]byte, 2000), 1460), 54, 0},
		{"segments larger than the limit", offloaded(make([]byte, 2000), 1460), 554, 4},
		{"shorter than Ethernet", make([]byte, 20), 1514, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			out, n := tapstack.AppendFinished(nil, tt.frame, tapstack.Plain, tt.limit)
			if got := len(checkPlain(t, out, tt.limit)); got != tt.want || n != tt.want {
				t.Errorf("%d frames said, %d found, want %d", n, got, tt.want)
			}
		})
	}
}

func TestOffloadAllocatesNothing(t *testing.T) {
	frame := offloaded(make([]byte, 60000), 1460)
	broken := bytes.Clone(frame)
	broken[atGSO] = 9
	dst := make([]byte, 0, 1<<17)
	allocs := testing.AllocsPerRun(100, func() {
		if tapstack.CheckOffload(frame) != nil || tapstack.CheckOffload(broken) == nil {
			t.Fatal("the wrong frame was accepted")
		}
		dst, _ = tapstack.AppendFinished(dst[:0], frame, tapstack.Plain, 1514)
	})
	if allocs != 0 {
		t.Errorf("checking and cutting allocate %v times, want 0", allocs)
	}
}

// FuzzCheckOffload: whatever a peer says, what is accepted points into the frame
// only, says the same when it is checked again, and can be cut into frames whose
// checksums are right.
func FuzzCheckOffload(f *testing.F) {
	f.Add(offloaded(make([]byte, 3000), 1460))
	f.Add(offloaded6(make([]byte, 3000), 1440))
	f.Add(offloadedUDP([]byte("question")))
	f.Add(plain(tapstacktest.ARPRequest(tapstack.EnclaveMAC(), tapstack.EnclaveAddr(), tapstack.GatewayAddr())))
	f.Fuzz(func(t *testing.T, frame []byte) {
		if tapstack.CheckOffload(frame) != nil {
			return
		}
		header := bytes.Clone(frame[:tapstack.OffloadHeader])
		length := len(frame) - tapstack.OffloadHeader
		field := func(at int) int { return int(binary.LittleEndian.Uint16(header[at:])) }
		if header[atFlags]&^1 != 0 || field(atStart)+field(atField)+2 > length || field(atHeaderLen) > length {
			t.Fatalf("accepted header % x in front of %d bytes", header, length)
		}
		if err := tapstack.CheckOffload(frame); err != nil || !bytes.Equal(header, frame[:tapstack.OffloadHeader]) {
			t.Fatalf("checked again: %v, % x; want % x", err, frame[:tapstack.OffloadHeader], header)
		}
		for _, limit := range []int{tapstack.MinFrame, 590, 1514, tapstack.MaxFrame} {
			out, n := tapstack.AppendFinished(nil, bytes.Clone(frame), tapstack.Plain, limit)
			for ; len(out) > 0; n-- {
				size := int(binary.LittleEndian.Uint16(out))
				if size > limit || size > len(out)-2 {
					t.Fatalf("a frame of %d bytes, limit %d", size, limit)
				}
				out = out[2+size:]
			}
			if n != 0 {
				t.Fatalf("%d frames more were said than are there", n)
			}
		}
	})
}
