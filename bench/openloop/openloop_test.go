package openloop_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corridor-enclave/corridor/bench/openloop"
)

// A pipeListener accepts in-memory connections, so that a server and its load can
// live in simulated time.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func (l *pipeListener) dial(ctx context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-l.done:
		return nil, errors.New("refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// serve runs a server in the bubble until the returned function is called.
func serve(h http.HandlerFunc) (*pipeListener, func()) {
	l := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
	srv := &http.Server{Handler: h}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(l) })
	return l, func() { _ = srv.Close(); wg.Wait() }
}

func target(l *pipeListener) openloop.Target {
	return openloop.Target{URL: "http://app/", Dial: l.dial, Timeout: time.Minute}
}

// oneAtATime serves each request in a millisecond, and stops for 200 ms at every
// 500th: a pause of a garbage collector, say.
func oneAtATime() http.HandlerFunc {
	turn := make(chan struct{}, 1)
	served := 0
	return func(http.ResponseWriter, *http.Request) {
		turn <- struct{}{}
		defer func() { <-turn }()
		time.Sleep(time.Millisecond)
		if served++; served%500 == 0 {
			time.Sleep(200 * time.Millisecond)
		}
	}
}

// TestStallsAreNotOmitted: a stalled server stalls a closed loop, which then does
// not ask and does not see what it would have waited. An open loop does.
func TestStallsAreNotOmitted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, stop := serve(oneAtATime())
		defer stop()
		closed, err := openloop.Run(t.Context(), target(l), openloop.Load{Connections: 1, Duration: 6 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		if p99 := time.Duration(closed.Latency.ValueAtPercentile(99)); p99 > 2*time.Millisecond {
			t.Errorf("p99 of the closed loop is %v, want the service time: the test's premise", p99)
		}
		for _, process := range []openloop.Process{openloop.Uniform, openloop.Poisson} {
			open, err := openloop.Run(t.Context(), target(l), openloop.Load{
				Arrivals:    openloop.Arrivals{Process: process, Rate: 500, Seed: 1},
				Connections: 64, Duration: 6 * time.Second, Patience: time.Second,
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := open.Clean(); err != nil {
				t.Error(err)
			}
			// Of the 500 requests between two stalls the 100 that arrive during one, and
			// those behind them until the queue is empty, wait for it: 40 % or so.
			p99, p50 := time.Duration(open.Latency.ValueAtPercentile(99)), time.Duration(open.Latency.ValueAtPercentile(50))
			if p99 < 180*time.Millisecond || p99 > 230*time.Millisecond {
				t.Errorf("%s: p99 of the open loop is %v, want about 195 ms", process, p99)
			}
			if p50 > 10*time.Millisecond {
				t.Errorf("%s: p50 of the open loop is %v, want about the service time", process, p50)
			}
		}
	})
}

// With fewer connections than wait during a stall, the wait for a connection is
// latency too: what is omitted shows in Service.
func TestWaitingForAConnectionCounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, stop := serve(oneAtATime())
		defer stop()
		r, err := openloop.Run(t.Context(), target(l), openloop.Load{
			Arrivals:    openloop.Arrivals{Process: openloop.Uniform, Rate: 500},
			Connections: 1, Duration: 6 * time.Second, Patience: time.Second,
		})
		if err != nil {
			t.Fatal(err)
		}
		latency, service := time.Duration(r.Latency.ValueAtPercentile(99)), time.Duration(r.Service.ValueAtPercentile(99))
		if latency < 180*time.Millisecond || service > 2*time.Millisecond {
			t.Errorf("p99 is %v from the intended time and %v from the first byte; want about 195 ms and 1 ms", latency, service)
		}
	})
}

func TestSchedule(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name         string
		service      time.Duration
		load         openloop.Load
		sent, unsent int64
		rate         float64 // 0 means that it is not looked at
		longest      time.Duration
	}{
		{
			name: "all in time", service: time.Millisecond,
			load: openloop.Load{Connections: 4, Duration: 2 * time.Second,
				Arrivals: openloop.Arrivals{Process: openloop.Uniform, Rate: 100}},
			sent: 200, rate: 100, longest: time.Millisecond,
		},
		{
			name: "the warm-up does not count", service: time.Millisecond,
			load: openloop.Load{Connections: 4, Warmup: time.Second, Duration: 2 * time.Second,
				Arrivals: openloop.Arrivals{Process: openloop.Uniform, Rate: 100}},
			sent: 200, rate: 100, longest: time.Millisecond,
		},
		{
			name: "a burst queues", service: 10 * time.Millisecond,
			load: openloop.Load{Connections: 1, Duration: time.Second,
				Arrivals: openloop.Arrivals{Process: openloop.Burst, Rate: 10, Group: 5}},
			sent: 10, longest: 50 * time.Millisecond,
		},
		{
			// Arrivals at 0, 100, ... 1900 ms; served from 0, 1, 2 s; given up at 2.5 s.
			name: "given up", service: time.Second,
			load: openloop.Load{Connections: 1, Duration: 2 * time.Second, Patience: 500 * time.Millisecond,
				Arrivals: openloop.Arrivals{Process: openloop.Uniform, Rate: 10}},
			sent: 3, unsent: 17, longest: 3*time.Second - 200*time.Millisecond,
		},
		{
			name: "a closed loop", service: 10 * time.Millisecond,
			load: openloop.Load{Connections: 3, Warmup: time.Second, Duration: time.Second},
			sent: 300, rate: 300, longest: 10 * time.Millisecond,
		},
		{
			name: "a closed loop shorter than an answer", service: time.Second,
			load: openloop.Load{Connections: 2, Warmup: 100 * time.Millisecond, Duration: 100 * time.Millisecond},
			sent: 2, longest: time.Second,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l, stop := serve(func(http.ResponseWriter, *http.Request) { time.Sleep(tt.service) })
				defer stop()
				r, err := openloop.Run(t.Context(), target(l), tt.load)
				if err != nil {
					t.Fatal(err)
				}
				if r.Sent != tt.sent || r.OK != tt.sent || r.Unsent != tt.unsent {
					t.Errorf("%d sent, %d OK, %d unsent; want %d, all OK, %d", r.Sent, r.OK, r.Unsent, tt.sent, tt.unsent)
				}
				if tt.rate != 0 && (r.Rate() < 0.99*tt.rate || r.Rate() > 1.01*tt.rate) {
					t.Errorf("%.1f a second, want %.1f", r.Rate(), tt.rate)
				}
				// The histogram keeps three digits.
				if longest := time.Duration(r.Latency.Max()); longest < tt.longest*999/1000 || longest > tt.longest*1002/1000 {
					t.Errorf("the longest latency is %v, want %v", longest, tt.longest)
				}
				if r.Latency.TotalCount() != tt.sent+tt.unsent {
					t.Errorf("%d latencies of %d requests", r.Latency.TotalCount(), tt.sent+tt.unsent)
				}
			})
		})
	}
}

func TestStoppedFromOutside(t *testing.T) {
	t.Parallel()
	for name, arrivals := range map[string]openloop.Arrivals{
		"open":   {Process: openloop.Uniform, Rate: 100},
		"closed": {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l, stop := serve(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
				defer stop()
				enough := errors.New("enough")
				ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, enough)
				defer cancel()
				began := time.Now()
				r, err := openloop.Run(ctx, target(l), openloop.Load{Arrivals: arrivals, Connections: 2, Duration: time.Hour})
				if r != nil || !errors.Is(err, enough) {
					t.Errorf("Run = %v, %v; want the cause", r, err)
				}
				if took := time.Since(began); took > time.Second+100*time.Millisecond {
					t.Errorf("it took %v to stop", took-time.Second)
				}
			})
		})
	}
}

func TestLoadsThatCannotBe(t *testing.T) {
	t.Parallel()
	good := openloop.Target{URL: "http://127.0.0.1:1/", Timeout: time.Second}
	load := openloop.Load{Connections: 1, Duration: time.Second}
	tests := []struct {
		name   string
		change func(*openloop.Target, *openloop.Load)
		want   string
	}{
		{"no URL", func(t *openloop.Target, _ *openloop.Load) { t.URL = "app:80" }, "not an http or https URL"},
		{"no timeout", func(t *openloop.Target, _ *openloop.Load) { t.Timeout = 0 }, "timeout of 0s"},
		{"no method", func(t *openloop.Target, _ *openloop.Load) { t.Method = "GET IT" }, "invalid method"},
		{"HTTP/2, always new", func(t *openloop.Target, _ *openloop.Load) { t.HTTP2, t.Fresh = true, true }, "new connection"},
		{"streams of HTTP/1.1", func(t *openloop.Target, _ *openloop.Load) { t.Streams = 2 }, "2 streams"},
		{"no connection", func(_ *openloop.Target, l *openloop.Load) { l.Connections = 0 }, "0 connections"},
		{"no time", func(_ *openloop.Target, l *openloop.Load) { l.Duration = 0 }, "load of 0s"},
		{"no process", func(_ *openloop.Target, l *openloop.Load) { l.Arrivals.Rate = 5 }, "none of uniform"},
	}
	for _, tt := range tests {
		target, load := good, load
		tt.change(&target, &load)
		if _, err := openloop.Run(t.Context(), target, load); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Run = %v, want %q", tt.name, err, tt.want)
		}
	}
}
