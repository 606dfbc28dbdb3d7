package netstack

import (
	"bytes"
	"encoding/binary"
	"sync"
	"testing"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
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

func TestAppendFrameSkipsReservedRoom(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ headers, data int }{
		{header.EthernetMinimumSize, 0}, {header.EthernetMinimumSize, 1}, {54, 1460}, {54, 60000},
	} {
		headers, data := numbered(tt.headers), bytes.Repeat([]byte{0xaa}, tt.data)
		p := packet(headers, data)
		got := appendFrame([]byte("before"), p)
		p.DecRef()
		want := binary.LittleEndian.AppendUint16([]byte("before"), uint16(tt.headers+tt.data))
		want = append(append(want, headers...), data...)
		if !bytes.Equal(got, want) {
			t.Errorf("%d header and %d data bytes: %d bytes that differ from the %d expected", tt.headers, tt.data, len(got), len(want))
		}
	}
}

func TestBatch(t *testing.T) {
	t.Parallel()
	large, small := packet(numbered(54), make([]byte, 1460)), packet(numbered(54), nil)
	giant := packet(numbered(54), make([]byte, 60000))
	defer large.DecRef()
	defer small.DecRef()
	defer giant.DecRef()
	for _, tt := range []struct {
		name    string
		packets []*stack.PacketBuffer
		taken   int
	}{
		{"one that is larger than a write leaves alone", []*stack.PacketBuffer{giant, small}, 1},
		{"one too many waits", append(repeat(large, 20), giant), 20},
		{"all that fit leave together", repeat(small, 100), 100},
		{"a write stays below its limit", repeat(large, 100), maxWrite / (lengthField + 54 + 1460)},
	} {
		b, n := batch(batchBuffer(1500), tt.packets)
		if n != tt.taken {
			t.Errorf("%s: %d packets taken, want %d", tt.name, n, tt.taken)
		}
		if n > 1 && len(b) > maxWrite {
			t.Errorf("%s: %d bytes in one write", tt.name, len(b))
		}
	}
}

func repeat(p *stack.PacketBuffer, n int) []*stack.PacketBuffer {
	all := make([]*stack.PacketBuffer, n)
	for i := range all {
		all[i] = p
	}
	return all
}

func TestBatchAllocatesNothing(t *testing.T) {
	p := packet(numbered(54), make([]byte, 1460))
	defer p.DecRef()
	packets, buf := repeat(p, 20), batchBuffer(1500)
	if n := testing.AllocsPerRun(100, func() { batch(buf, packets) }); n != 0 {
		t.Errorf("batch allocates %v times", n)
	}
}

func TestQueueDropsWithoutStream(t *testing.T) {
	t.Parallel()
	var c counters
	q := newQueue(&c)
	p := packet(numbered(54), nil)
	defer p.DecRef()
	q.push(p, true)
	q.open()
	q.push(p, true)
	q.close()
	if got := c.dropNoStream.Load(); got != 2 {
		t.Errorf("%d drops counted, want 2: one before the stream, one left at its end", got)
	}
	if p.ReadRefs() != 1 {
		t.Errorf("%d references are held, want the test's own", p.ReadRefs())
	}
	if q.take(nil) != nil {
		t.Error("a closed queue gave packets")
	}
}

func TestQueueLimits(t *testing.T) {
	t.Parallel()
	var c counters
	q := newQueue(&c)
	q.open()
	p := packet(numbered(54), make([]byte, 1<<16-100))
	defer p.DecRef()
	size := lengthField + p.Size()
	n := 0
	for ; c.dropQueueFull.Load() == 0; n++ {
		q.push(p, false)
	}
	if want := queueHardLimit/size + 1; n != want {
		t.Errorf("packet %d was dropped first, want %d: what may not wait goes up to the hard limit", n, want)
	}
	var waiting sync.WaitGroup
	waiting.Go(func() { q.push(p, true) })
	taken := q.take(nil)
	q.written(len(taken) * size)
	waiting.Wait() // below the limit again, the sender goes on
	if got := q.take(nil); len(got) != 1 {
		t.Errorf("%d packets after the wait, want the one that waited", len(got))
	} else {
		release(got)
	}
	release(taken)
	q.close()
	if p.ReadRefs() != 1 {
		t.Errorf("%d references are held, want the test's own", p.ReadRefs())
	}
}

func TestQueueCloseLetsSendersGo(t *testing.T) {
	t.Parallel()
	var c counters
	q := newQueue(&c)
	q.open()
	p := packet(numbered(54), make([]byte, 1<<16-100))
	defer p.DecRef()
	for q.bytes <= queueLimit {
		q.push(p, false)
	}
	var waiting sync.WaitGroup
	for range 4 {
		waiting.Go(func() { q.push(p, true) })
	}
	q.close()
	waiting.Wait()
	if p.ReadRefs() != 1 {
		t.Errorf("%d references are held, want the test's own", p.ReadRefs())
	}
}
