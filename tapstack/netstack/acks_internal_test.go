package netstack

import (
	"testing"
	"testing/synctest"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// A said is what a segment says.
type said struct {
	port, ack, window, data int
	flags                   header.TCPFlags // beside ACK
	options                 int             // bytes
}

func (s said) packet() *stack.PacketBuffer {
	p := segment(make([]byte, s.data), 1460)
	if s.options > 0 {
		p.DecRef()
		p = segmentWithOptions(s.data, s.options)
	}
	t := header.TCP(p.TransportHeader().Slice())
	t.SetSourcePort(uint16(s.port))
	t.SetAckNumber(uint32(s.ack))
	t.SetWindowSize(uint16(s.window))
	t.SetFlags(uint8(header.TCPFlagAck | s.flags))
	return p
}

// segmentWithOptions has as many bytes of options, which nobody looks at.
func segmentWithOptions(data, options int) *stack.PacketBuffer {
	small := segment(make([]byte, data), 1460)
	defer small.DecRef()
	p := stack.NewPacketBuffer(stack.PacketBufferOptions{ReserveHeaderBytes: 200, Payload: small.Data().ToBuffer()})
	copy(p.TransportHeader().Push(header.TCPMinimumSize+options), small.TransportHeader().Slice())
	copy(p.NetworkHeader().Push(header.IPv4MinimumSize), small.NetworkHeader().Slice())
	p.TransportProtocolNumber, p.NetworkProtocolNumber = header.TCPProtocolNumber, header.IPv4ProtocolNumber
	return p
}

// TestDelayedAck is about which acknowledgement is held after a flow's first segments.
func TestDelayedAck(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		first said // the segment before
		next  said
		held  bool
	}{
		{"of nothing new: it may be the third of its kind", said{ack: 100, window: 9}, said{ack: 100, window: 9}, false},
		{"of less than before", said{ack: 100, window: 9}, said{ack: 99, window: 9}, false},
		{"of two full segments", said{ack: 100, window: 9}, said{ack: 100 + ackAtOnce, window: 9}, false},
		{"that closes the window", said{ack: 100, window: 9}, said{ack: 200, window: 0}, false},
		{"that opens the window", said{ack: 100, window: 0}, said{ack: 200, window: 9}, false},
		{"with payload", said{ack: 100, window: 9}, said{ack: 200, window: 9, data: 1}, false},
		{"with an end", said{ack: 100, window: 9}, said{ack: 200, window: 9, flags: header.TCPFlagFin}, false},
		{"with a reset", said{ack: 100, window: 9}, said{ack: 200, window: 9, flags: header.TCPFlagRst}, false},
		{"with ranges beyond a gap", said{ack: 100, window: 9}, said{ack: 200, window: 9, options: 24}, false},
		{"of another flow, whose last one is not known", said{ack: 100, window: 9}, said{port: 7, ack: 200, window: 9}, false},
		{"of a new connection", said{ack: 100, window: 9}, said{ack: 200, window: 9, flags: header.TCPFlagSyn}, false},
		{"of a small answer", said{ack: 100, window: 9}, said{ack: 200, window: 9}, true},
		{"with timestamps", said{ack: 100, window: 9}, said{ack: 200, window: 9, options: 12}, true},
		{"around the end of the numbers", said{ack: 1<<32 - 10, window: 9}, said{ack: 90, window: 9}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var d delayedAcks
			first, next := test.first.packet(), test.next.packet()
			defer first.DecRef()
			defer next.DecRef()
			if before, held := d.pass(first, flowHash(first, 1)); held || before != nil {
				t.Fatalf("the first segment of a flow: held %v, before it %v", held, before)
			}
			if _, held := d.pass(next, flowHash(next, 1)); held != test.held {
				t.Errorf("held: %v, want %v", held, test.held)
			}
			d.forget()
			if next.ReadRefs() != 1 {
				t.Errorf("%d references are left, want the test's own", next.ReadRefs())
			}
		})
	}
}

// follow passes segments of a flow, and returns how many are held.
func follow(d *delayedAcks, segments ...said) (held int) {
	for _, s := range segments {
		p := s.packet()
		before, isHeld := d.pass(p, flowHash(p, 1))
		if isHeld {
			held++
		}
		if before != nil {
			before.DecRef()
		}
		p.DecRef()
	}
	return held
}

// TestDelayedAckIsSuperseded by what the flow says next, and by nothing of another
// flow in its place, which it leaves before. Duplicates are all told: three of them
// have a sender repeat what was lost.
func TestDelayedAckIsSuperseded(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		then said
		left bool // the held one leaves before
		held bool // the new one is held
	}{
		{"a request", said{ack: 200, window: 9, data: 50}, false, false},
		{"a later acknowledgement", said{ack: 300, window: 9}, false, true},
		{"the end", said{ack: 200, window: 9, flags: header.TCPFlagFin}, false, false},
		{"a duplicate", said{ack: 200, window: 9}, true, false},
		{"a duplicate with ranges beyond a gap", said{ack: 200, window: 9, options: 24}, true, false},
		{"another window", said{ack: 200, window: 8}, true, false},
		{"another flow with the same hash", said{port: 5, ack: 200, window: 9, data: 50}, true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var d delayedAcks
			const hash = 77
			for _, s := range []said{{ack: 100, window: 9}, {ack: 200, window: 9}} {
				p := s.packet()
				d.pass(p, hash)
				p.DecRef()
			}
			p := test.then.packet()
			defer p.DecRef()
			before, held := d.pass(p, hash)
			if got := before != nil; got != test.left || held != test.held {
				t.Errorf("it leaves: %v, want %v; the next is held: %v, want %v", got, test.left, held, test.held)
			}
			if before != nil {
				before.DecRef()
			}
			d.forget()
		})
	}
}

// TestDelayedAcksOfBulk are few once the flow has a window, and none are missing
// before.
func TestDelayedAcksOfBulk(t *testing.T) {
	t.Parallel()
	var d delayedAcks
	const step = 2896
	segments := make([]said, 3000)
	for i := range segments {
		segments[i] = said{ack: step * i, window: 9}
	}
	if held := follow(&d, segments[:30]...); held != 0 {
		t.Errorf("%d are held of the first 30, want 0: the sender has a small window", held)
	}
	if held := follow(&d, segments[30:]...); held < 2200 {
		t.Errorf("%d are held of the next 2,970, want most", held)
	}
	for i := range segments {
		segments[i].ack += 3000 * step
	}
	if most := ackMost / step; len(segments)-follow(&d, segments...) < len(segments)/(most+2) {
		t.Errorf("more than %d bytes are not acknowledged", ackMost)
	}
	d.forget()
}

// TestDelayedAckInVain spares a flow that waits for what is held: one that writes
// twice before it reads, with Nagle's algorithm.
func TestDelayedAckInVain(t *testing.T) {
	t.Parallel()
	var d delayedAcks
	follow(&d, said{window: 9})
	const exchanges = 1000
	vain, ack := 0, 0
	for range exchanges {
		ack += 100
		if follow(&d, said{ack: ack, window: 9}) == 1 { // of the first write
			vain++
			for range 2 {
				for _, p := range d.tick(nil) {
					p.DecRef()
				}
			}
		}
		ack += 100 // the second one, and the next request
		follow(&d, said{ack: ack, window: 9}, said{ack: ack, window: 9, data: 10})
	}
	if vain == 0 || vain > exchanges/20 {
		t.Errorf("%d of %d exchanges had to wait, want few", vain, exchanges)
	}
	d.forget()
}

// TestQueueLetsDelayedAcksGo after a while, and closes with one.
func TestQueueLetsDelayedAcksGo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(new(counters))
		q.open()
		push := func(s said) {
			p := s.packet()
			defer p.DecRef()
			q.push(p, false)
		}
		push(said{ack: 100, window: 9})
		release(q.take(nil))
		begin := time.Now()
		push(said{ack: 200, window: 9})
		taken := q.take(nil)
		if took := time.Since(begin); len(taken) != 1 || took < ackTick || took > 2*ackTick {
			t.Errorf("%d packets after %s, want one after %s to %s", len(taken), took, ackTick, 2*ackTick)
		}
		release(taken)
		push(said{ack: 300, window: 9}) // spared
		push(said{ack: 400, window: 9}) // held
		if taken = q.take(nil); len(taken) != 1 {
			t.Errorf("%d packets, want the one that is not held", len(taken))
		}
		release(taken)
		p := said{ack: 500, window: 9, data: 1}.packet()
		defer p.DecRef()
		q.push(p, false)
		if taken = q.take(nil); len(taken) != 1 {
			t.Errorf("%d packets, want the request alone", len(taken))
		}
		release(taken)
		push(said{ack: 600, window: 9})
		q.close()
		time.Sleep(3 * ackTick) // on the bubble's clock: nothing is left that runs
		if q.take(nil) != nil || len(q.acks.listed) != 0 {
			t.Error("a closed queue holds something")
		}
	})
}
