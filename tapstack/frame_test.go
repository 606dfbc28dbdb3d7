package tapstack_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strconv"
	"testing"
	"testing/iotest"

	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

func vector(t testing.TB, name string) []byte {
	t.Helper()
	return tapstacktest.Vector(t, "testdata/"+name)
}

// readInto copies the next frame, without its virtio-net header, to buf.
func readInto(frames *tapstack.FrameReader, buf []byte) (int, error) {
	frame, err := frames.Next()
	if err != nil {
		return 0, err
	}
	if !bytes.Equal(frame[:tapstack.OffloadHeader], make([]byte, tapstack.OffloadHeader)) {
		return 0, errors.New("the virtio-net header of a plain frame is not zero")
	}
	return copy(buf, frame[tapstack.OffloadHeader:]), nil
}

func TestReadFrame(t *testing.T) {
	t.Parallel()
	const limit = 1514
	tests := []struct {
		name string
		in   []byte
		n    int
		err  error
		text string // part of the error
	}{
		{name: "end between frames", in: nil, err: io.EOF},
		{name: "end inside length", in: []byte{14}, err: io.ErrUnexpectedEOF},
		{name: "end behind length", in: []byte{14, 0}, err: io.ErrUnexpectedEOF},
		{name: "end inside frame", in: vector(t, "frame-cut.hex"), err: io.ErrUnexpectedEOF},
		{name: "length of nothing", in: vector(t, "frame-zero.hex"), err: tapstack.ErrFrameSize, text: ": 0 bytes"},
		{name: "shorter than an Ethernet header", in: vector(t, "frame-short.hex"), err: tapstack.ErrFrameSize, text: ": 13 bytes"},
		{name: "one more than the limit", in: tapstack.AppendFrame(nil, make([]byte, limit+1)), err: tapstack.ErrFrameSize, text: ": 1515 bytes"},
		{name: "an HTTP answer", in: []byte("HTTP/1.1 404 Not Found\r\n"), err: tapstack.ErrFrameSize, text: ": 21576 bytes"},
		{name: "shortest frame", in: vector(t, "frame-min.hex"), n: tapstack.MinFrame},
		{name: "longest frame", in: tapstack.AppendFrame(nil, make([]byte, limit)), n: limit},
		{name: "first of two", in: vector(t, "frames-two.hex"), n: tapstack.MinFrame},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			buf := make([]byte, limit)
			n, err := readInto(tapstack.NewFrameReader(bytes.NewReader(tt.in), tapstack.Plain, limit), buf)
			if n != tt.n || !errors.Is(err, tt.err) {
				t.Fatalf("ReadFrame = %d, %v; want %d, %v", n, err, tt.n, tt.err)
			}
			if err != nil && !bytes.Contains([]byte(err.Error()), []byte(tt.text)) {
				t.Errorf("error %q does not name %q", err, tt.text)
			}
			if err == nil && !bytes.Equal(buf[:n], tt.in[2:2+n]) {
				t.Errorf("frame is % x, want % x", buf[:n], tt.in[2:2+n])
			}
		})
	}
}

// However the stream is cut into reads, the frames are the same.
func TestReadFrameFromEveryKindOfStream(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	var want [][]byte
	var stream []byte
	for range 40 {
		frame := make([]byte, tapstack.MinFrame+random.IntN(tapstack.MaxFrame-tapstack.MinFrame+1))
		for i := range frame {
			frame[i] = byte(random.Uint32())
		}
		want = append(want, frame)
		stream = tapstack.AppendFrame(stream, frame)
	}
	tests := []struct {
		name string
		wrap func(io.Reader) io.Reader
	}{
		{name: "one byte at a time", wrap: iotest.OneByteReader},
		{name: "half reads", wrap: iotest.HalfReader},
		{name: "data with the end", wrap: iotest.DataErrReader},
		{name: "whole", wrap: func(r io.Reader) io.Reader { return r }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			frames := tapstack.NewFrameReader(tt.wrap(bytes.NewReader(stream)), tapstack.Plain, tapstack.MaxFrame)
			buf := make([]byte, tapstack.MaxFrame)
			for i, frame := range want {
				n, err := readInto(frames, buf)
				if err != nil || !bytes.Equal(buf[:n], frame) {
					t.Fatalf("frame %d: %d bytes, %v; want %d bytes unchanged", i, n, err, len(frame))
				}
			}
			if _, err := readInto(frames, buf); err != io.EOF {
				t.Fatalf("after the last frame: %v, want io.EOF", err)
			}
		})
	}
}

func TestAppendFramePanicsOnWhatItCannotSay(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, tapstack.MinFrame - 1, tapstack.MaxFrame + 1} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("AppendFrame with %d bytes did not panic", size)
				}
			}()
			tapstack.AppendFrame(nil, make([]byte, size))
		}()
	}
}

func TestAppendFrameMatchesVector(t *testing.T) {
	t.Parallel()
	probe := tapstacktest.ARPRequest(tapstack.EnclaveMAC(), tapstack.EnclaveAddr(), tapstack.GatewayAddr())
	if got, want := tapstack.AppendFrame(nil, probe), vector(t, "arp-probe.hex"); !bytes.Equal(got, want) {
		t.Errorf("AppendFrame = % x, want % x", got, want)
	}
}

func TestReadFrameAllocatesNothing(t *testing.T) {
	stream := bytes.Repeat(tapstack.AppendFrame(nil, make([]byte, 1514)), 100)
	source := bytes.NewReader(stream)
	frames := tapstack.NewFrameReader(source, tapstack.Plain, tapstack.MaxFrame)
	buf := make([]byte, tapstack.MaxFrame)
	allocs := testing.AllocsPerRun(1000, func() {
		if source.Len() == 0 {
			source.Reset(stream)
		}
		if _, err := readInto(frames, buf); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("ReadFrame allocates %v times, want 0", allocs)
	}
}

// TestReady: it says true exactly if Next needs no more bytes.
func TestReady(t *testing.T) {
	t.Parallel()
	for _, framing := range []tapstack.Framing{tapstack.Plain, tapstack.Extended} {
		one := tapstack.AppendFrame(nil, make([]byte, 42))
		if framing == tapstack.Extended {
			one = make([]byte, 4+tapstack.OffloadHeader+42)
			tapstack.PutExtended(one, 42)
		}
		for cut := range len(one) + 1 {
			stream := append(bytes.Clone(one), one[:cut]...)
			frames := tapstack.NewFrameReader(bytes.NewReader(stream), framing, tapstack.MaxFrame)
			if frames.Ready() {
				t.Error("ready before anything was read")
			}
			if _, err := frames.Next(); err != nil {
				t.Fatal(err)
			}
			if got, want := frames.Ready(), cut == len(one); got != want {
				t.Errorf("%s, %d bytes of %d: Ready is %v", framing, cut, len(one), got)
			}
		}
	}
}

// FuzzReadFrame: what is accepted is exactly what AppendFrame writes, frame for
// frame, and nothing is lost or read twice.
func FuzzReadFrame(f *testing.F) {
	for _, name := range []string{"frame-min.hex", "frame-short.hex", "frame-zero.hex", "frame-cut.hex", "frames-two.hex", "arp-reply.hex"} {
		f.Add(vector(f, name), uint16(1514))
	}
	f.Fuzz(func(t *testing.T, in []byte, limit uint16) {
		frames := tapstack.NewFrameReader(bytes.NewReader(in), tapstack.Plain, int(limit))
		buf := make([]byte, limit)
		var out []byte
		for {
			n, err := readInto(frames, buf)
			if err == io.EOF && len(out) != len(in) {
				t.Fatalf("a clean end after %d of %d bytes", len(out), len(in))
			}
			if err != nil {
				break
			}
			out = tapstack.AppendFrame(out, buf[:n])
		}
		if !bytes.HasPrefix(in, out) {
			t.Fatalf("round trip changed the bytes: % x is no prefix of % x", out, in)
		}
	})
}

func BenchmarkReadFrame(b *testing.B) {
	for _, size := range []int{64, 1514, 65535} {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			stream := bytes.Repeat(tapstack.AppendFrame(nil, make([]byte, size)), 64)
			source := bytes.NewReader(stream)
			frames := tapstack.NewFrameReader(source, tapstack.Plain, tapstack.MaxFrame)
			buf := make([]byte, tapstack.MaxFrame)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if source.Len() == 0 {
					source.Reset(stream)
				}
				if _, err := readInto(frames, buf); err != nil && err != io.EOF {
					b.Fatal(err)
				}
			}
		})
	}
}
