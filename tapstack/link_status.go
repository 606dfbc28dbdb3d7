package tapstack

import (
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// LinkStatus is what a Link did and does, at one moment.
type LinkStatus struct {
	// Connected says whether frames pass now.
	Connected bool
	// Since is when Connected became what it is.
	Since time.Time
	// Connects is how often the link came up.
	Connects uint64
	// Reconnects is how often it came up again: Connects without the first.
	Reconnects uint64
	// LastError is why the link is down, and empty while it is up.
	LastError string
	// Uplink is what was written to the host, Downlink what was delivered to
	// the device.
	Uplink, Downlink Traffic
	// Extended says whether the host speaks the extended link.
	Extended bool
	// Lanes is how many streams the link has now; 0 while it is down.
	Lanes int
	// Writes is how many writes to the stream Uplink took.
	Writes uint64
	// Waiting is how many bytes were read from the device and are not yet written.
	Waiting int64
	// Drops counts the frames that went no further.
	Drops LinkDrops
	// PerLane is what has passed each queue and its lane.
	PerLane []LinkLane
	// Failures is how many attempts brought no link, and Losses how the others ended.
	Failures uint64
	Losses   LinkLosses
	Sizes    LinkSizes
}

// LinkLane is what has passed one queue, and the lane that its downlink comes from.
type LinkLane struct{ Uplink, Downlink Traffic }

// LinkDrops counts dropped frames by cause.
type LinkDrops struct {
	Refused uint64 // downlink: the device did not take it
	Offload uint64 // downlink: its virtio-net header is wrong
	TooLong uint64 // uplink: the link cannot say its length
	// TooShort is uplink: no Ethernet header.
	TooShort uint64
	// Neighbour is uplink: a large segment to a machine behind a plain host, which the
	// kernel sends again in small ones.
	Neighbour uint64
	Framing   uint64 // uplink: read for a host that was replaced by another kind
}

// Traffic counts frames, and their bytes from the Ethernet header on.
type Traffic struct {
	Frames, Bytes uint64
}

// Status returns the state of the link and its counters.
func (l *Link) Status() LinkStatus {
	l.mu.Lock()
	status := l.status
	l.mu.Unlock()
	if status.Connects > 0 {
		status.Reconnects = status.Connects - 1
	}
	status.Sizes = l.sizes.snapshot()
	for i := range l.counters[:len(l.queues)] {
		c := &l.counters[i]
		var lane LinkLane
		c.uplink.addTo(&lane.Uplink)
		c.downlink.addTo(&lane.Downlink)
		c.uplink.addTo(&status.Uplink)
		c.downlink.addTo(&status.Downlink)
		status.PerLane = append(status.PerLane, lane)
		status.Waiting += c.waiting.Load()
		status.Writes += c.writes.Load()
		status.Drops.Refused += c.dropRefused.Load()
		status.Drops.Offload += c.dropOffload.Load()
		status.Drops.TooLong += c.dropTooLong.Load()
		status.Drops.TooShort += c.dropTooShort.Load()
		status.Drops.Neighbour += c.dropNeighbour.Load()
		status.Drops.Framing += c.dropFraming.Load()
	}
	return status
}

// counters are written by the pumps of one lane and read by everybody.
type counters struct {
	uplink, downlink                                   traffic
	writes                                             atomic.Uint64
	dropRefused, dropOffload, dropTooLong, dropFraming atomic.Uint64
	dropTooShort, dropNeighbour                        atomic.Uint64
	waiting                                            atomic.Int64 // bytes

	_ [64]byte // lanes run on different CPUs: no two on one cache line
}

type traffic struct{ frames, bytes atomic.Uint64 }

func (t *traffic) add(frames, bytes int) {
	t.frames.Add(uint64(frames))
	t.bytes.Add(uint64(bytes))
}

func (t *traffic) addTo(sum *Traffic) {
	sum.Frames += t.frames.Load()
	sum.Bytes += t.bytes.Load()
}

// backoff is the delay between attempts: random, so that the enclaves of one
// host do not come back in step, and bounded by a limit that doubles from
// 2*minBackoff to maxBackoff. The zero value is ready.
type backoff struct{ limit time.Duration }

func (b *backoff) next() time.Duration {
	b.limit = min(max(b.limit, minBackoff)*2, maxBackoff)
	return minBackoff + rand.N(b.limit-minBackoff+1)
}

// maxOutageErrors is how many distinct errors of one outage are logged. The
// host chooses some of the texts.
const maxOutageErrors = 8

// outage logs what happens between two times that the link is up: each distinct
// error once, and the recovery.
type outage struct {
	log      *slog.Logger
	began    time.Time
	attempts int
	seen     map[string]bool
}

func newOutage(log *slog.Logger) outage {
	return outage{log: log, began: time.Now(), seen: make(map[string]bool)}
}

// add notes one lost stream or failed attempt.
func (o *outage) add(err error) {
	if o.attempts == 0 {
		o.began = time.Now()
	}
	o.attempts++
	text := err.Error()
	if o.seen[text] || len(o.seen) >= maxOutageErrors {
		return
	}
	o.seen[text] = true
	o.log.Warn("link is down, trying again", "error", text)
}

// over notes that the link is up on s.
func (o *outage) over(s *stream) {
	o.log.Info("link is up", "framing", s.framing.String(), "host", s.peer.withoutLink().String(), "lanes", len(s.lanes),
		"after", time.Since(o.began).Round(time.Millisecond), "failures", o.attempts)
	o.attempts = 0
	clear(o.seen)
}
