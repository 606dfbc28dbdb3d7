// Package telemetry hears what enclaves say of themselves on VSOCK port 1026
// (tapstack/WIRE.md, section 13): log lines and events go to the host's log,
// metrics are kept for whoever asks. It answers nothing.
//
// An enclave runs code that the host's operator need not trust. So its words are
// made printable and cut, it cannot name a metric or a label, it is read no faster
// than it may speak, and only enclaves are heard that the host has to do with.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/corridor-enclave/corridor/tapstack/pacing"
	"github.com/corridor-enclave/corridor/tapstack/telemetry"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

const (
	// maxEnclaves bounds the CIDs that are heard or remembered.
	maxEnclaves = 256
	// silence is how long a stream may say nothing; an enclave of ours speaks
	// every five seconds.
	silence = time.Minute
)

// Config is what a Receiver needs.
type Config struct {
	// Known says whether the host has to do with an enclave. Others are not heard.
	Known func(vsockconn.CID) bool
	// Now is the clock.
	Now func() time.Time
	// Log gets the enclaves' lines and events, and the host's own about them.
	Log *slog.Logger
}

// A Receiver hears enclaves.
type Receiver struct {
	config Config
	known  map[uint16]bool // metrics that mean something

	running sync.WaitGroup // streams

	mu       sync.Mutex
	enclaves map[vsockconn.CID]*enclave
	refused  uint64
}

// An enclave is what is known of one CID. The Receiver's lock guards it.
type enclave struct {
	conn   net.Conn // nil: it is not heard now
	since  time.Time
	heard  time.Time
	values map[uint16]uint64
	events map[telemetry.Code]uint64
	lines  uint64
	pace   *pace
}

// A Report is what one enclave said of itself. None of it is proven.
type Report struct {
	CID       vsockconn.CID
	Connected bool
	Since     time.Time // when Connected became what it is
	Heard     time.Time // when the last record came
	Lines     uint64    // of its log
	Values    map[uint16]uint64
	Events    map[telemetry.Code]uint64 // how often each was told; those that are not known as one
}

// New returns a Receiver that has heard nothing.
func New(c Config) *Receiver {
	return &Receiver{config: c, known: telemetry.Known(), enclaves: map[vsockconn.CID]*enclave{}}
}

// Run hears enclaves until ctx ends, and returns nil when every stream is closed.
// It closes l.
func (r *Receiver) Run(ctx context.Context, l net.Listener) error {
	r.config.Log.Info("listening", "part", "telemetry", "addr", l.Addr().String())
	ctx, stop := context.WithCancel(ctx)
	defer r.running.Wait()
	defer stop()
	closing := context.AfterFunc(ctx, func() { l.Close() })
	defer closing()
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			r.running.Go(func() { r.hear(ctx, conn) })
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("telemetry: accept: %w", err)
		default:
			pacing.Pause(ctx.Done(), pacing.Accept)
		}
	}
}

// hear reads one stream to its end.
func (r *Receiver) hear(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	closing := context.AfterFunc(ctx, func() { conn.Close() })
	defer closing()
	cid, _ := vsockconn.PeerCID(conn)
	log := r.config.Log.With("part", "telemetry", "cid", uint32(cid))
	e, err := r.enter(cid, conn)
	if err != nil {
		log.Debug("enclave is not heard", "err", err)
		return
	}
	err = r.read(ctx, cid, e, conn)
	if r.leave(e, conn) && ctx.Err() == nil {
		log.Info("enclave has fallen silent", "err", err)
	}
}

// read takes records until the stream ends or breaks a rule.
func (r *Receiver) read(ctx context.Context, cid vsockconn.CID, e *enclave, conn net.Conn) error {
	reader := telemetry.NewReader(conn)
	for {
		if err := conn.SetReadDeadline(r.config.Now().Add(silence)); err != nil {
			return err
		}
		rec, err := reader.Next()
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		r.take(cid, e, rec)
		if wait := e.pace.spend(r.config.Now()); wait > 0 {
			pacing.Pause(ctx.Done(), wait)
		}
	}
}

// enter makes conn the stream of the CID. An older one is closed: the enclave has
// begun anew.
func (r *Receiver) enter(cid vsockconn.CID, conn net.Conn) (*enclave, error) {
	known := r.config.Known(cid) // asks others, so not with the lock held
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.config.Now()
	e := r.enclaves[cid]
	if e == nil && len(r.enclaves) >= maxEnclaves {
		r.forget()
	}
	switch {
	case !known:
		r.refused++
		return nil, errors.New("no port leads to it and it has no link")
	case e == nil && len(r.enclaves) >= maxEnclaves:
		r.refused++
		return nil, fmt.Errorf("there are %d others", maxEnclaves)
	case e == nil:
		e = &enclave{pace: newPace(now), events: map[telemetry.Code]uint64{}}
		r.enclaves[cid] = e
	case e.conn != nil:
		e.conn.Close()
	}
	e.conn, e.since, e.heard, e.values = conn, now, now, map[uint16]uint64{}
	return e, nil
}

// forget drops the enclave that has been silent for the longest, if one is silent.
func (r *Receiver) forget() {
	var oldest *enclave
	var which vsockconn.CID
	for cid, e := range r.enclaves {
		if e.conn == nil && (oldest == nil || e.since.Before(oldest.since)) {
			oldest, which = e, cid
		}
	}
	if oldest != nil {
		delete(r.enclaves, which)
	}
}

// leave reports whether the stream was the enclave's last.
func (r *Receiver) leave(e *enclave, conn net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.conn != conn {
		return false
	}
	e.conn, e.since = nil, r.config.Now()
	return true
}

// take believes as much of a record as it may.
func (r *Receiver) take(cid vsockconn.CID, e *enclave, rec any) {
	r.mu.Lock()
	e.heard = r.config.Now()
	switch rec := rec.(type) {
	case telemetry.Log:
		e.lines++
	case telemetry.Event:
		code := rec.Code
		if code.String() == telemetry.Code(0).String() {
			code = 0 // all that are not known are one
		}
		e.events[code]++
	case telemetry.Snapshot:
		for _, v := range rec.Values {
			if r.known[v.Metric] {
				e.values[v.Metric] = v.Value
			}
		}
	}
	r.mu.Unlock()
	switch rec := rec.(type) {
	case telemetry.Log:
		r.logLine(cid, rec)
	case telemetry.Event:
		r.config.Log.Info("enclave event", "cid", uint32(cid), "event", rec.Code.String(), "code", uint16(rec.Code), "value", rec.Value)
	}
}

// Reports returns what every enclave said, in the order of CIDs.
func (r *Receiver) Reports() []Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []Report
	for cid, e := range r.enclaves {
		report := Report{
			CID: cid, Connected: e.conn != nil, Since: e.since, Heard: e.heard, Lines: e.lines,
			Values: make(map[uint16]uint64, len(e.values)), Events: make(map[telemetry.Code]uint64, len(e.events)),
		}
		for k, v := range e.values {
			report.Values[k] = v
		}
		for k, v := range e.events {
			report.Events[k] = v
		}
		all = append(all, report)
	}
	slices.SortFunc(all, func(a, b Report) int { return int(int64(a.CID) - int64(b.CID)) })
	return all
}

// Refused is how many streams of enclaves were not heard.
func (r *Receiver) Refused() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refused
}
