package netstack

import (
	"bytes"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// ackTick is how often it is looked whose acknowledgement was held too long: each
	// is held for one to two of it. RFC 9293 (section 3.8.6.3) allows 500 ms, and
	// Linux waits for 40.
	ackTick = 4 * time.Millisecond
	// ackPlaces is how many flows there can be of which acknowledgements are held: a
	// multiple of queueBuckets, so that who shares a place shares a bucket.
	ackPlaces = 4 * queueBuckets
	// ackAtOnce is how much may be received of a flow that was not acknowledged: less
	// than two full segments (RFC 5681, section 4.2) of an Ethernet.
	ackAtOnce = 2 * 1448
	// ackShare is the part of what a flow has sent that may go unacknowledged beyond
	// that: a sender that has come so far has a window of more. ackMost is the most.
	ackShare = 32
	ackMost  = 32 << 10
	// maxPatience is the most acknowledgements that leave at once after one that was
	// held in vain, and ackLuck how many in a row must not be for that to become half.
	maxPatience = 63
	ackLuck     = 16
	// plainHeaderTCP is the length of a TCP header with no more than timestamps.
	plainHeaderTCP = header.TCPMinimumSize + 12
)

// delayedAcks holds acknowledgements without payload for a while, as receivers do
// (RFC 9293, section 3.8.6.3): most often a segment of the same flow follows that
// says the same. The stack below acknowledges at once whatever it has received, so
// an enclave would take two frames for each small request, and one for every few
// segments that it sends.
//
//	                   a newer segment of the flow
//	acknowledgement ──► held ───────────────────────► dropped
//	      │              │  ackTick
//	      │              └───────────────────────────► leaves, in vain
//	      └─ of too much, or of nothing new; or the flow is spared ──► leaves
//
// A flow whose peer says nothing before it has the acknowledgement is spared next:
// for 1, then 3, up to maxPatience of them. The queue's lock guards all this.
type delayedAcks struct {
	places [ackPlaces]ackPlace
	listed []*ackPlace // which hold one, or did
	ticks  uint32
	spared uint64      // how many were dropped
	timer  *time.Timer // runs while any is listed
}

// An ackPlace is what is known of one flow.
type ackPlace struct {
	held     *stack.PacketBuffer
	since    uint32 // the tick before
	flow     uint32 // hash
	acked    uint32 // as the last segment said that left
	total    uint32 // bytes acknowledged since the flow has the place, up to what matters
	open     bool   // that segment had a window
	listed   bool
	patience uint8
	skip     uint8 // how many leave at once, still
	luck     uint8 // how many were dropped since one left in vain
}

// pass looks at a segment that is about to leave. It reports whether the segment is
// held, with a reference of its own, and returns one that has to leave before it, whose
// reference is the caller's.
func (d *delayedAcks) pass(p *stack.PacketBuffer, hash uint32) (before *stack.PacketBuffer, held bool) {
	t := header.TCP(p.TransportHeader().Slice())
	if len(t) < header.TCPMinimumSize {
		return nil, false
	}
	at := &d.places[hash%ackPlaces]
	before = d.supersede(at, p, t)
	window := t.WindowSize() > 0
	if at.flow != hash || t.Flags()&header.TCPFlagSyn != 0 {
		*at = ackPlace{flow: hash, acked: t.AckNumber(), open: window, listed: at.listed}
		return before, false
	}
	received := t.AckNumber() - at.acked
	isPlain := p.Data().Size() == 0 && t.Flags() == header.TCPFlagAck && len(t) <= plainHeaderTCP
	if isPlain && window && at.open && received > 0 && received < max(ackAtOnce, at.total/ackShare) {
		if at.skip == 0 {
			d.hold(at, p)
			return before, true
		}
		at.skip--
	}
	if received < 1<<31 {
		at.total = min(at.total+min(received, ackMost), ackShare*ackMost)
	}
	at.acked, at.open = t.AckNumber(), window
	return before, false
}

func (d *delayedAcks) hold(at *ackPlace, p *stack.PacketBuffer) {
	at.held, at.since = p.IncRef(), d.ticks
	if !at.listed {
		at.listed = true
		d.listed = append(d.listed, at)
	}
}

// supersede drops what is held if p says the same and more, and else returns it. One that
// says the same and no more counts: it is a duplicate (RFC 5681, section 3.2), or has
// another window.
func (d *delayedAcks) supersede(at *ackPlace, p *stack.PacketBuffer, t header.TCP) (before *stack.PacketBuffer) {
	old := at.held
	at.held = nil
	if old == nil || !sameFlow(old, p) || t.Flags()&header.TCPFlagAck == 0 {
		return old
	}
	if was := ackNumber(old); was == t.AckNumber() && p.Data().Size() == 0 && t.Flags() == header.TCPFlagAck {
		at.acked = was
		return old
	}
	if at.luck++; at.luck == ackLuck {
		at.luck, at.patience = 0, at.patience/2
	}
	d.spared++
	old.DecRef()
	return nil
}

func ackNumber(p *stack.PacketBuffer) uint32 {
	return header.TCP(p.TransportHeader().Slice()).AckNumber()
}

// sameFlow compares the ends: there may be flows of one hash.
func sameFlow(a, b *stack.PacketBuffer) bool {
	const ports = 4
	from, to := 12, header.IPv4MinimumSize // both addresses
	if a.NetworkProtocolNumber == header.IPv6ProtocolNumber {
		from, to = 8, header.IPv6MinimumSize
	}
	x, y := a.NetworkHeader().Slice(), b.NetworkHeader().Slice()
	return a.NetworkProtocolNumber == b.NetworkProtocolNumber && len(x) >= to && len(y) >= to &&
		bytes.Equal(x[from:to], y[from:to]) &&
		bytes.Equal(a.TransportHeader().Slice()[:ports], b.TransportHeader().Slice()[:ports])
}

// tick appends to late those that were held for long enough, with their references.
func (d *delayedAcks) tick(late []*stack.PacketBuffer) []*stack.PacketBuffer {
	d.ticks++
	still := d.listed[:0]
	for _, at := range d.listed {
		if at.held != nil && d.ticks-at.since < 2 {
			still = append(still, at)
			continue
		}
		at.listed = false
		if at.held == nil {
			continue
		}
		late = append(late, at.held)
		at.acked = ackNumber(at.held)
		at.held, at.luck = nil, 0
		at.patience = min(2*at.patience+1, maxPatience)
		at.skip = at.patience
	}
	clear(d.listed[len(still):])
	d.listed = still
	return late
}

// forget drops what is held.
func (d *delayedAcks) forget() {
	for _, at := range d.listed {
		if at.held != nil {
			at.held.DecRef()
		}
	}
	*d = delayedAcks{timer: d.timer, spared: d.spared}
}
