package tapstack

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// Control records (WIRE.md, section 9.3):
//
//	 0               4      5            13
//	+---------------+------+------------+
//	| type 1, n = 9 | kind | token      |   kind 1: ping; 2: the answer to it, with its token
//	+---------------+------+------------+
const (
	controlPing   = 1
	controlAnswer = 2
	tokenLen      = 8
	controlLen    = 1 + tokenLen
)

const (
	// PulseEvery is how often a stream is looked at, where nothing else is said.
	PulseEvery = 4 * time.Second
	// maxQuiet is how often in a row nothing may have come from a peer: then it is
	// gone. By then it has been asked twice.
	maxQuiet = 3
)

// ErrSilent reports a peer from which nothing came for three to four times
// PulseEvery, although it was asked. The stream must be closed: VSOCK itself never notices.
var ErrSilent = errors.New("tapstack: nothing comes from the other end, which was asked for a sign of life")

// A Pulse keeps one stream in the extended framing under watch: it asks the peer
// for a sign of life when nothing comes, and gives one when it is asked. The one
// who reads the stream tells it what comes; Run does the rest.
type Pulse struct {
	every time.Duration
	due   chan struct{} // holds a token while there is something to write
	heard atomic.Bool

	mu     sync.Mutex
	ping   bool
	answer bool
	token  [tokenLen]byte // to answer with
	asked  uint64         // pings so far, which is their token
}

// NewPulse returns the Pulse of a stream, which looks at it every so often: 0 is
// PulseEvery.
func NewPulse(every time.Duration) *Pulse {
	if every == 0 {
		every = PulseEvery
	}
	return &Pulse{every: every, due: make(chan struct{}, 1)}
}

// Heard says that something came from the peer. It costs next to nothing, and is
// for every frame.
func (p *Pulse) Heard() {
	if !p.heard.Load() {
		p.heard.Store(true)
	}
}

// Control takes a control record that came from the peer, without what precedes
// it. What it does not know it passes over. Of several pings the last one is
// answered, so that a peer cannot make work by asking.
func (p *Pulse) Control(record []byte) {
	p.Heard()
	if len(record) != controlLen || record[0] != controlPing {
		return // also an answer: that it came is all there is to know
	}
	p.mu.Lock()
	p.answer = true
	copy(p.token[:], record[1:])
	p.mu.Unlock()
	p.wake()
}

// Run asks and answers until ctx ends, and returns when write has returned. write
// writes a record to the stream, not into another one. If the peer answers
// pings, and is gone, Run calls end, which must end the stream and with it a write
// that waits.
func (p *Pulse) Run(ctx context.Context, answers bool, write func([]byte) error, end func(error)) {
	var watch sync.WaitGroup
	defer watch.Wait()
	if answers {
		watch.Go(func() { p.watch(ctx, end) })
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.due:
		}
		if record := p.appendDue(nil); len(record) > 0 {
			if err := write(record); err != nil {
				end(err)
			}
		}
	}
}

// watch calls end when the peer is gone.
func (p *Pulse) watch(ctx context.Context, end func(error)) {
	tick := time.NewTicker(p.every)
	defer tick.Stop()
	for quiet := 0; quiet < maxQuiet; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if p.heard.Swap(false) {
			quiet = 0
			continue
		}
		quiet++
		p.mu.Lock()
		p.ping = true
		p.mu.Unlock()
		p.wake()
	}
	end(ErrSilent)
}

// wake has Run write what is due.
func (p *Pulse) wake() {
	select {
	case p.due <- struct{}{}:
	default: // it is awake
	}
}

// appendDue appends the records that are due to dst.
func (p *Pulse) appendDue(dst []byte) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.answer {
		dst = appendControl(dst, controlAnswer, p.token)
	}
	if p.ping {
		var token [tokenLen]byte
		binary.LittleEndian.PutUint64(token[:], p.asked)
		p.asked++
		dst = appendControl(dst, controlPing, token)
	}
	p.answer, p.ping = false, false
	return dst
}

func appendControl(dst []byte, kind byte, token [tokenLen]byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, typeControl<<typeShift|controlLen)
	return append(append(dst, kind), token[:]...)
}
