package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/corridor-enclave/corridor/tapstack/telemetry"
)

// errEnded reports a part that returned although nobody asked it to.
var errEnded = errors.New("ended by itself")

// A part is a piece of the sidecar that begins before those behind it in the
// sequence and ends after them.
type part struct {
	name string
	// begin makes the part ready, or fails. It may be nil.
	begin func(ctx context.Context) error
	// run does the part's work until its context ends; it is started once begin
	// has returned. Nil means that there is nothing to do in the background.
	run func(ctx context.Context) error
	// end releases what begin took, after run has returned. It may be nil.
	end func() error
	// mayEnd allows run to return by itself without an error. It still ends the
	// sequence, but is no failure.
	mayEnd bool
}

// A sequence begins its parts in order and ends them in reverse:
//
//	          begin 1..n                ctx ends, or a run returns
//	(nothing) ───────────► running ────────────────────────────────► stopping
//	     │                                                          end n..1 │
//	     │ begin k fails, or a run returns: end k-1..1                       ▼
//	     └─────────────────────────────────────────────────────────────► stopped
type sequence struct {
	parts []part
	// stopTimeout is how long all parts together may take to end. Parts bound
	// themselves to less; this is for one that does not keep its word.
	stopTimeout time.Duration
	log         *slog.Logger
	// events is told when all parts run, and when they stop. It may be nil.
	events func(telemetry.Code, uint64)
}

// An active part has begun.
type active struct {
	part
	cancel context.CancelFunc // asks run to return
	done   chan struct{}      // closed when run has returned
	err    error              // of run; valid when done is closed
}

// run returns nil if ctx ended, or a part that may end did so. What goes wrong
// while stopping is logged and changes nothing.
func (s *sequence) run(ctx context.Context) error {
	begun, cause, err := s.beginAll(ctx)
	if err != nil && ctx.Err() != nil {
		s.log.Debug("interrupted", "error", err)
		err = nil // it was asked to stop before it could begin
	}
	s.event(telemetry.Stopping)
	s.stop(begun, cause)
	return err
}

// beginAll begins the parts and waits until something ends them. It returns
// those that have begun, and which of them ended by itself, if one did.
func (s *sequence) beginAll(ctx context.Context) (begun []*active, cause *active, err error) {
	ended := make(chan *active, len(s.parts))
	for _, p := range s.parts {
		a, err := s.begin(ctx, p, ended)
		if err != nil {
			return begun, nil, named(p.name, err)
		}
		begun = append(begun, a)
		select {
		case cause := <-ended:
			return begun, cause, cause.reason()
		default:
		}
		if ctx.Err() != nil {
			return begun, nil, nil
		}
	}
	s.log.Info("running")
	s.event(telemetry.Serving)
	select {
	case <-ctx.Done():
		return begun, nil, nil
	case cause := <-ended:
		return begun, cause, cause.reason()
	}
}

func (s *sequence) begin(ctx context.Context, p part, ended chan<- *active) (*active, error) {
	if p.begin != nil {
		if err := p.begin(ctx); err != nil {
			return nil, err
		}
	}
	// A run does not stop when ctx ends but when its turn has come.
	runCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	a := &active{part: p, cancel: cancel, done: make(chan struct{})}
	if p.run == nil {
		close(a.done)
		return a, nil
	}
	go func() {
		defer close(a.done)
		a.err = p.run(runCtx)
		ended <- a // has room for every part
	}()
	return a, nil
}

// reason is why the sequence ends, given that this part ended by itself.
func (a *active) reason() error {
	switch {
	case a.err != nil:
		return named(a.name, a.err)
	case a.mayEnd:
		return nil
	}
	return named(a.name, errEnded)
}

// stop ends the parts in reverse order, each after the one behind it is gone.
// The error of cause is already told.
func (s *sequence) stop(begun []*active, cause *active) {
	deadline, cancel := context.WithTimeout(context.Background(), s.stopTimeout)
	defer cancel()
	for _, a := range slices.Backward(begun) {
		s.log.Debug("stopping", "part", a.name)
		a.cancel()
		select {
		case <-a.done:
		case <-deadline.Done():
		}
		select {
		case <-a.done:
			if a.err != nil && a != cause {
				s.log.Warn("not stopped cleanly", "part", a.name, "error", a.err)
			}
		default:
			s.log.Error("did not stop in time, leaving it behind", "part", a.name)
		}
		s.release(a)
	}
}

func (s *sequence) release(a *active) {
	if a.end == nil {
		return
	}
	if err := a.end(); err != nil {
		s.log.Warn("not stopped cleanly", "part", a.name, "error", err)
	}
}

func (s *sequence) event(c telemetry.Code) {
	if s.events != nil {
		s.events(c, 0)
	}
}

// named puts a part's name before its error.
func named(name string, err error) error { return fmt.Errorf("sidecar: %s: %w", name, err) }
