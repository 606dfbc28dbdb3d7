package tapstack_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/corridor-enclave/corridor/tapstack"
)

// put gives the batch a frame as a device does.
func put(t testing.TB, b *tapstack.Batch, frame []byte) {
	t.Helper()
	room := b.Next()
	if room == nil {
		t.Fatal("the batch is full")
	}
	b.Commit(copy(room, frame))
}

// toGateway sends a frame, with its virtio-net header, to the host.
func toGateway(frame []byte) []byte {
	copy(frame[tapstack.OffloadHeader:], tapstack.GatewayMAC())
	return frame
}

func TestBatchPlain(t *testing.T) {
	t.Parallel()
	b := tapstack.NewBatch(tapstack.Plain)
	tcp, udp := toGateway(offloaded(make([]byte, 5000), 1460)), offloadedUDP([]byte("question"))
	neighbour := offloaded([]byte("hello"), 0)
	put(t, b, plain(frameOf("first")))
	put(t, b, make([]byte, tapstack.OffloadHeader+13)) // too short
	put(t, b, make([]byte, tapstack.OffloadHeader+tapstack.MaxFrame+1))
	b.Next()
	b.Commit(0) // nothing was ready
	put(t, b, udp)
	put(t, b, tcp)
	put(t, b, offloaded(make([]byte, 5000), 1460)) // no other machine takes it
	put(t, b, neighbour)
	want := tapstack.AppendFrame(nil, frameOf("first"))
	finished := bytes.Clone(udp)
	tapstack.FinishChecksum(finished)
	want = tapstack.AppendFrame(want, finished[tapstack.OffloadHeader:])
	want = tapstack.AppendFrame(want, tcp[tapstack.OffloadHeader:]) // its checksum is the host's work
	finished = bytes.Clone(neighbour)
	tapstack.FinishChecksum(finished)
	want = tapstack.AppendFrame(want, finished[tapstack.OffloadHeader:])
	if got := b.Unsent(); !bytes.Equal(got, want) {
		t.Errorf("the stream gets % x\nwant % x", got, want)
	}
}

func TestBatchExtended(t *testing.T) {
	t.Parallel()
	b := tapstack.NewBatch(tapstack.Extended)
	frames := [][]byte{plain(frameOf("first")), offloaded(make([]byte, 60000), 1460), offloadedUDP([]byte("x"))}
	for _, frame := range frames {
		put(t, b, frame)
	}
	r := tapstack.NewFrameReader(bytes.NewReader(b.Unsent()), tapstack.Extended, tapstack.MaxFrame)
	for i, want := range frames {
		if got, err := r.Next(); err != nil || !bytes.Equal(got, want) {
			t.Errorf("frame %d: %d bytes, %v; want the %d as they were", i, len(got), err, len(want))
		}
	}
}

func TestBatchFillsUp(t *testing.T) {
	t.Parallel()
	for _, f := range []tapstack.Framing{tapstack.Plain, tapstack.Extended} {
		b := tapstack.NewBatch(f)
		n := 0
		for ; b.Next() != nil; n++ {
			b.Commit(tapstack.OffloadHeader + tapstack.MaxFrame)
		}
		if n < 4 || n > 6 {
			t.Errorf("%s: %d of the longest frames fit, want 4 to 6", f, n)
		}
	}
}

// Wherever a write ends, the next stream begins with a whole frame, and with the
// first that the last stream did not take whole.
func TestBatchRewinds(t *testing.T) {
	t.Parallel()
	for _, f := range []tapstack.Framing{tapstack.Plain, tapstack.Extended} {
		b := tapstack.NewBatch(f)
		var borders []int
		for _, text := range []string{"one", "", "three"} {
			borders = append(borders, len(b.Unsent()))
			put(t, b, plain(frameOf(text)))
		}
		all := bytes.Clone(b.Unsent())
		for written := range len(all) + 1 {
			b.Reset(f)
			for _, text := range []string{"one", "", "three"} {
				put(t, b, plain(frameOf(text)))
			}
			b.Wrote(written)
			b.Rewind()
			want := 0
			for _, border := range append(borders, len(all)) {
				if border <= written {
					want = border
				}
			}
			if got := len(all) - len(b.Unsent()); got != want {
				t.Errorf("%s: after %d bytes the next stream begins at %d, want %d", f, written, got, want)
			}
		}
	}
}

func TestBatchAllocatesNothing(t *testing.T) {
	frame := offloadedUDP(make([]byte, 1000))
	for _, f := range []tapstack.Framing{tapstack.Plain, tapstack.Extended} {
		b := tapstack.NewBatch(f)
		allocs := testing.AllocsPerRun(100, func() {
			b.Reset(f)
			for room := b.Next(); room != nil; room = b.Next() {
				b.Commit(copy(room, frame))
			}
		})
		if allocs != 0 {
			t.Errorf("%s: a batch allocates %v times, want 0", f, allocs)
		}
	}
}

func TestReadExtended(t *testing.T) {
	t.Parallel()
	word := func(n uint32) []byte { return binary.LittleEndian.AppendUint32(nil, n) }
	for name, tt := range map[string]struct {
		in   []byte
		want error
	}{
		"no room for a header":       {append(word(9), make([]byte, 9)...), tapstack.ErrFrameSize},
		"shorter than Ethernet":      {append(word(23), make([]byte, 23)...), tapstack.ErrFrameSize},
		"longer than the limit":      {word(10 + 1515), tapstack.ErrFrameSize},
		"longer than any frame":      {word(1<<28 - 1), tapstack.ErrFrameSize},
		"long control":               {word(1<<28 | 1025), tapstack.ErrFrameSize},
		"unknown type":               {append(word(2<<28|24), make([]byte, 24)...), tapstack.ErrFrameSize},
		"an answer in HTTP":          {[]byte("HTTP/1.1 400 Bad Request"), tapstack.ErrFrameSize},
		"the end inside its control": {append(word(1<<28|5), 1, 2, 3), io.ErrUnexpectedEOF},
	} {
		r := tapstack.NewFrameReader(bytes.NewReader(tt.in), tapstack.Extended, 1514)
		if frame, err := r.Next(); !errors.Is(err, tt.want) {
			t.Errorf("%s: %d bytes, %v; want %v", name, len(frame), err, tt.want)
		}
	}
}

// FuzzReadExtended: what is read is what is there, record for record.
func FuzzReadExtended(f *testing.F) {
	f.Add(vector(f, "extended-frames.hex"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := tapstack.NewFrameReader(bytes.NewReader(in), tapstack.Extended, 1514)
		rest := in
		for {
			got, err := r.Next()
			want, behind := firstExtended(rest)
			if (err == nil) != (want != nil) || !bytes.Equal(got, want) {
				t.Fatalf("read % x, %v; want % x", got, err, want)
			}
			if err != nil {
				return
			}
			rest = behind
		}
	})
}

// firstExtended is the slow and obvious reader of one frame.
func firstExtended(b []byte) (frame, behind []byte) {
	for len(b) >= 4 {
		kind, n := b[3]>>4, int(b[0])|int(b[1])<<8|int(b[2])<<16|int(b[3]&15)<<24
		if len(b)-4 < n || kind > 1 || (kind == 1 && n > 1024) || (kind == 0 && (n < 24 || n > 1524)) {
			return nil, nil
		}
		if kind == 0 {
			return b[4 : 4+n], b[4+n:]
		}
		b = b[4+n:]
	}
	return nil, nil
}
