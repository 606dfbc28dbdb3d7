package telemetry_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	reporter "github.com/corridor-enclave/corridor/enclave/telemetry"
	"github.com/corridor-enclave/corridor/tapstack/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A stand is a Reporter and the host that it dials, in a bubble of synctest.
type stand struct {
	*reporter.Reporter
	dialed chan net.Conn // the host's ends
	dials  int
	stop   func()
}

// newStand runs a Reporter; with refuse not nil no host listens.
func newStand(t *testing.T, mode reporter.Mode, refuse error) *stand {
	t.Helper()
	s := &stand{dialed: make(chan net.Conn, 100)}
	s.Reporter = reporter.New(reporter.Config{
		Mode: mode, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		Collect: func() []telemetry.Value { return []telemetry.Value{{Metric: telemetry.Goroutines, Value: 7}} },
		Dial: func(context.Context) (net.Conn, error) {
			s.dials++
			if refuse != nil {
				return nil, refuse
			}
			inside, outside := net.Pipe()
			s.dialed <- outside
			return inside, nil
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	s.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	}
	return s
}

// next returns the next record of the stream.
func next(t *testing.T, r *telemetry.Reader) any {
	t.Helper()
	rec, err := r.Next()
	if err != nil {
		t.Fatalf("the stream: %v", err)
	}
	return rec
}

// opened returns the reader of the next stream behind its first event and its
// first snapshot.
func (s *stand) opened(t *testing.T) (net.Conn, *telemetry.Reader, telemetry.Snapshot) {
	t.Helper()
	conn := <-s.dialed
	t.Cleanup(func() { conn.Close() })
	r := telemetry.NewReader(conn)
	if e, ok := next(t, r).(telemetry.Event); !ok || e.Code != telemetry.Reporting {
		t.Fatalf("the stream begins with %+v", e)
	}
	snapshot, ok := next(t, r).(telemetry.Snapshot)
	if !ok {
		t.Fatal("no snapshot")
	}
	return conn, r, snapshot
}

func value(s telemetry.Snapshot, metric uint16) uint64 {
	for _, v := range s.Values {
		if v.Metric == metric {
			return v.Value
		}
	}
	return 0
}

func TestOffTellsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStand(t, reporter.Off, nil)
		s.Event(telemetry.Serving, 0)
		time.Sleep(time.Hour)
		s.stop()
		if s.dials > 0 {
			t.Errorf("it dialed %d times", s.dials)
		}
		(*reporter.Reporter)(nil).Event(telemetry.Serving, 0)
	})
}

// TestHostThatIsNotThere: attempts grow rare, and stopping takes no time.
func TestHostThatIsNotThere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStand(t, reporter.Events, errors.New("nobody listens"))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if s.dials < 12 || s.dials > 30 {
			t.Errorf("%d attempts in ten minutes", s.dials)
		}
		before := time.Now()
		s.stop()
		if took := time.Since(before); took > 0 {
			t.Errorf("stopping took %v", took)
		}
	})
}

// TestHostThatDoesNotRead: nobody waits for it, what is kept is bounded, the rest
// is counted, and its stream is given up.
func TestHostThatDoesNotRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStand(t, reporter.Logs, nil)
		log := s.Tee(slog.New(slog.NewTextHandler(io.Discard, nil)))
		stuck := <-s.dialed
		defer stuck.Close()
		before := time.Now()
		const lines = 10000
		for range lines {
			log.Info(strings.Repeat("x", 100))
			s.Event(telemetry.Serving, 1)
		}
		if took := time.Since(before); took > 0 {
			t.Errorf("telling took %v", took)
		}
		conn, r, first := s.opened(t) // the next stream
		if got := value(first, telemetry.LostLogs); got < lines/2 || got >= lines {
			t.Errorf("%d of %d lines lost", got, lines)
		}
		rest := 0
		for {
			if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Next(); err != nil {
				break
			}
			rest++
		}
		lost := value(first, telemetry.LostLogs) + value(first, telemetry.LostEvents)
		if uint64(rest)+lost != 2*lines {
			t.Errorf("%d records came and %d are said to be lost, of %d", rest, lost, 2*lines)
		}
		conn.Close()
		s.stop()
	})
}

func TestStopWhileTheHostDoesNotRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStand(t, reporter.Events, nil)
		stuck := <-s.dialed
		defer stuck.Close()
		synctest.Wait()
		before := time.Now()
		s.stop()
		if took := time.Since(before); took > time.Second {
			t.Errorf("stopping took %v", took)
		}
	})
}

func TestTells(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStand(t, reporter.Logs, nil)
		s.Event(telemetry.AppEnded, 3)
		_, r, snapshot := s.opened(t)
		if value(snapshot, telemetry.Goroutines) != 7 {
			t.Errorf("snapshot %+v", snapshot)
		}
		if e, ok := next(t, r).(telemetry.Event); !ok || e.Code != telemetry.AppEnded || e.Value != 3 {
			t.Errorf("event %+v", e)
		}
		var local strings.Builder
		log := s.Tee(slog.New(slog.NewTextHandler(&local, &slog.HandlerOptions{Level: slog.LevelDebug})))
		log.Debug("too little")
		log.With("part", "link").WithGroup("g").With("a", 1).Warn("said", "b", errors.New("x"), slog.Group("h", "c", true))
		if !strings.Contains(local.String(), "too little") || !strings.Contains(local.String(), "said") {
			t.Errorf("the log itself:\n%s", &local)
		}
		l, ok := next(t, r).(telemetry.Log)
		var attrs []string
		for _, a := range l.Attrs {
			attrs = append(attrs, a.Key+"="+a.Value)
		}
		if got := strings.Join(attrs, " "); !ok || l.Message != "said" || l.Level != slog.LevelWarn || got != "part=link g.a=1 g.b=x g.h.c=true" {
			t.Errorf("line %+v", l)
		}
		before := time.Now()
		if _, ok := next(t, r).(telemetry.Snapshot); !ok || time.Since(before) != 5*time.Second {
			t.Errorf("the next snapshot after %v", time.Since(before))
		}
		// The last words come too.
		s.Event(telemetry.Stopping, 0)
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			s.stop()
		}()
		if e, ok := next(t, r).(telemetry.Event); !ok || e.Code != telemetry.Stopping {
			t.Errorf("event %+v", e)
		}
		if _, err := r.Next(); err != io.EOF {
			t.Errorf("the end: %v", err)
		}
		<-stopped
	})
}

// TestModeEventsTellsNoLine: text leaves the enclave only if it was asked for.
func TestModeEventsTellsNoLine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStand(t, reporter.Events, nil)
		s.Tee(slog.New(slog.NewTextHandler(io.Discard, nil))).Error("secret")
		s.Event(telemetry.Stopping, 0)
		_, r, _ := s.opened(t)
		if e, ok := next(t, r).(telemetry.Event); !ok || e.Code != telemetry.Stopping {
			t.Errorf("the first record is %+v", e)
		}
		s.stop()
	})
}
