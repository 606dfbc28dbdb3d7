// Package telemetry tells the host what the enclave wants it to know: events and
// metrics, and, if the image says so, log lines of parts that are asked for one by
// one. It never waits for the host and reads nothing from it: what the host does
// not take is lost and counted.
//
// The host is not trusted. So nothing is told that comes from the app or from a
// client's request: no output of the app, no path, no header, no address. Who
// wires the parts decides whose logger is a Tee, and which numbers are told.
package telemetry

import (
	"context"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/corridor-enclave/corridor/tapstack/pacing"
	"github.com/corridor-enclave/corridor/tapstack/telemetry"
)

const (
	// every is the time between two snapshots of the metrics. The host learns no
	// finer a clock from them.
	every = 5 * time.Second
	// firstPause and lastPause bound the pause before a host that does not listen
	// is tried again; it doubles in between.
	firstPause = time.Second
	lastPause  = time.Minute
	// lifetime is how long a stream must have lasted for the pause to begin anew.
	lifetime = time.Minute
	// writeTimeout is how long a host may leave a connection or a write before it
	// is given up.
	writeTimeout = 10 * time.Second
	// farewell is how long the last records may take when the enclave stops.
	farewell = time.Second
	// maxWrite bounds one write, in bytes: larger ones are reported to arrive
	// corrupted on Nitro.
	maxWrite = 16 << 10
)

// A Mode is how much is told.
type Mode int

// The modes. Each tells what the one before it does, and more.
const (
	Off    Mode = iota
	Events      // events and metrics
	Logs        // and log lines
)

// String is the mode as it is set.
func (m Mode) String() string { return [...]string{"off", "events", "logs"}[m] }

// Config says what is told, and to whom.
type Config struct {
	// Mode is how much is told. With Off there is nothing to run.
	Mode Mode
	// Dial reaches the host.
	Dial func(context.Context) (net.Conn, error)
	// Collect returns the metrics of now. It is called by Run.
	Collect func() []telemetry.Value
	// Now is the clock.
	Now func() time.Time
	// Log gets what an operator should know. It must not be a Tee.
	Log *slog.Logger
}

// A Reporter tells. Its methods are safe for concurrent use and never block; on a
// nil Reporter, or one that is Off, they do nothing.
type Reporter struct {
	cfg     Config
	waiting *ring
	streams atomic.Uint64
}

// New returns a Reporter that keeps what it is told until Run can pass it on.
func New(cfg Config) *Reporter { return &Reporter{cfg: cfg, waiting: newRing(maxWaiting)} }

// Event tells that something happened.
func (r *Reporter) Event(c telemetry.Code, value uint64) {
	if r == nil || r.cfg.Mode == Off {
		return
	}
	r.waiting.add(telemetry.Event{Code: c, At: r.cfg.Now(), Value: value}.Append(nil), false)
}

// Run passes on what there is until ctx ends. It always returns nil: an enclave
// whose host does not listen works all the same.
//
//	          connected                        write fails
//	pausing ───────────► reporting: snapshots ─────────────┐
//	  ▲   ▲                  and what waits                │
//	  │   └────────────────────────────────────────────────┘
//	  └── 1 s, doubling to 1 min; from the start again after a stream of 1 min
func (r *Reporter) Run(ctx context.Context) error {
	if r.cfg.Mode == Off {
		<-ctx.Done()
		return nil
	}
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		began := r.cfg.Now()
		if err := r.stream(ctx); err != nil && ctx.Err() == nil {
			r.cfg.Log.Debug("telemetry is not taken", "error", err)
		}
		if r.cfg.Now().Sub(began) >= lifetime {
			pause = firstPause
		}
		if !pacing.Pause(ctx.Done(), pacing.About(pause)) {
			return nil
		}
	}
}

// stream connects once and reports until the host is gone or ctx ends.
func (r *Reporter) stream(ctx context.Context) error {
	dialing, cancel := context.WithTimeout(ctx, writeTimeout)
	conn, err := r.cfg.Dial(dialing)
	cancel()
	if err != nil {
		return err
	}
	defer conn.Close()
	hurry := context.AfterFunc(ctx, func() { _ = conn.SetWriteDeadline(time.Now().Add(farewell)) })
	defer hurry()
	buf := telemetry.AppendOpening(make([]byte, 0, maxWrite))
	buf = telemetry.Event{Code: telemetry.Reporting, At: r.cfg.Now(), Value: r.streams.Add(1)}.Append(buf)
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for first := true; ; first = false {
		snapshot := first
		if !first {
			select {
			case <-ctx.Done():
				return r.flush(ctx, conn, buf[:0])
			case <-ticker.C:
				snapshot = true
			case <-r.waiting.wake:
			}
		}
		if snapshot {
			buf = r.snapshot(buf)
		}
		if err := r.flush(ctx, conn, buf); err != nil {
			return err
		}
		buf = buf[:0]
	}
}

func (r *Reporter) snapshot(buf []byte) []byte {
	logs, events := r.waiting.lost()
	values := append(r.cfg.Collect(),
		telemetry.Value{Metric: telemetry.LostLogs, Value: logs},
		telemetry.Value{Metric: telemetry.LostEvents, Value: events})
	return telemetry.Snapshot{At: r.cfg.Now(), Values: values}.Append(buf)
}

// flush writes buf and behind it all that waits, in little time if ctx has ended.
func (r *Reporter) flush(ctx context.Context, conn net.Conn, buf []byte) error {
	err := conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	if ctx.Err() != nil {
		err = conn.SetWriteDeadline(time.Now().Add(farewell))
	}
	if err != nil {
		return err
	}
	for {
		var logs, events uint64
		buf, logs, events = r.waiting.take(buf, maxWrite)
		if len(buf) == 0 {
			return nil
		}
		if _, err := conn.Write(buf); err != nil {
			r.waiting.lose(logs, events)
			return err
		}
		buf = buf[:0]
	}
}
