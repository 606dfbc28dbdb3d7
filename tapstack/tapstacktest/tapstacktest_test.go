package tapstacktest_test

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"testing"

	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

var _ tapstack.Device = (*tapstacktest.Device)(nil)

func TestPipeRefusesWhatATAPRefuses(t *testing.T) {
	t.Parallel()
	a, b := tapstacktest.Pipe(100)
	tests := []struct {
		name string
		size int
		err  error
	}{
		{name: "nothing", size: 0, err: os.ErrInvalid},
		{name: "shorter than an Ethernet header", size: 13, err: os.ErrInvalid},
		{name: "longer than the MTU allows", size: 115, err: os.ErrInvalid},
		{name: "shortest", size: 14},
		{name: "longest", size: 114},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			frame := append(make([]byte, tapstack.OffloadHeader), bytes.Repeat([]byte{byte(tt.size)}, tt.size)...)
			if err := a.WriteFrame(frame); !errors.Is(err, tt.err) {
				t.Fatalf("WriteFrame of %d bytes = %v, want %v", tt.size, err, tt.err)
			}
			if tt.err != nil {
				return
			}
			buf := make([]byte, 200)
			if n, err := b.ReadFrame(buf); err != nil || !bytes.Equal(buf[:n], frame) {
				t.Fatalf("ReadFrame = % x, %v, want % x", buf[:n], err, frame)
			}
		})
	}
}

func TestPipeClose(t *testing.T) {
	t.Parallel()
	a, b := tapstacktest.Pipe(1500)
	read := make(chan error)
	go func() {
		_, err := a.ReadFrame(make([]byte, 2000))
		read <- err
	}()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-read; !errors.Is(err, os.ErrClosed) {
		t.Errorf("ReadFrame at Close = %v, want os.ErrClosed", err)
	}
	if err := a.WriteFrame(make([]byte, 24)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("WriteFrame after Close = %v, want os.ErrClosed", err)
	}
	for range 200 { // more than the queue holds
		if err := b.WriteFrame(make([]byte, 24)); err != nil {
			t.Fatalf("WriteFrame to a closed end = %v, want a silent drop", err)
		}
	}
}

func TestBuiltPacketsHaveRightChecksums(t *testing.T) {
	t.Parallel()
	src, dst := netip.MustParseAddrPort("192.168.127.2:5353"), netip.MustParseAddrPort("192.168.127.1:53")
	for _, payload := range [][]byte{nil, {1}, []byte("an odd number of bytes.")} {
		udp := tapstacktest.UDP(src, dst, payload)
		packet := tapstacktest.IPv4(tapstacktest.ProtocolUDP, src.Addr(), dst.Addr(), udp)
		if sum := tapstacktest.Checksum(0, packet[:20]); sum != 0 {
			t.Errorf("IPv4 header of %q sums to %#x, want 0", payload, sum)
		}
		pseudo := append(append([]byte(nil), packet[12:20]...), 0, 17, 0, byte(len(udp)))
		if sum := tapstacktest.Checksum(0, append(pseudo, udp...)); sum != 0 {
			t.Errorf("UDP of %q sums to %#x, want 0", payload, sum)
		}
		if sum := tapstacktest.Checksum(0, tapstacktest.ICMPEcho(7, 1, payload)); sum != 0 {
			t.Errorf("ICMP echo of %q sums to %#x, want 0", payload, sum)
		}
	}
	if got := tapstacktest.IPv4(1, src.Addr(), dst.Addr(), make([]byte, 300)); got[2] != 1 || got[3] != 64 {
		t.Errorf("total length is % x, want 01 40", got[2:4])
	}
}

func TestChecksumOfRFC1071(t *testing.T) {
	t.Parallel()
	// Section 3 of RFC 1071 sums these words to ddf2.
	got := tapstacktest.Checksum(0, []byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7})
	if want := ^uint16(0xddf2); got != want {
		t.Errorf("Checksum = %#x, want %#x", got, want)
	}
}
