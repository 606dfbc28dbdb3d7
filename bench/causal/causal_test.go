package causal_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/corridor-enclave/corridor/bench/causal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A station serves so many operations at a time, each in a known time. It is the
// model of a hop.
type station struct {
	name    string
	servers chan struct{}
	service time.Duration
	delay   atomic.Int64
}

func newStation(name string, servers int, service time.Duration) *station {
	return &station{name: name, servers: make(chan struct{}, servers), service: service}
}

func (s *station) pass() {
	s.servers <- struct{}{}
	time.Sleep(s.service + time.Duration(s.delay.Load()))
	<-s.servers
}

// A model is a closed network: each client sends its next operation through all
// stations when the last is through.
type model struct {
	clients  int
	stations []*station
}

// measure runs the model for a while of simulated time.
func (m model) measure(context.Context) (causal.Observation, error) {
	const while = 2 * time.Second
	var mu sync.Mutex
	var took []time.Duration
	began := time.Now()
	var clients sync.WaitGroup
	for range m.clients {
		clients.Go(func() {
			for time.Since(began) < while {
				sent := time.Now()
				for _, s := range m.stations {
					s.pass()
				}
				mu.Lock()
				took = append(took, time.Since(sent))
				mu.Unlock()
			}
		})
	}
	clients.Wait()
	slices.Sort(took)
	return causal.Observation{Rate: float64(len(took)) / time.Since(began).Seconds(), P99: took[len(took)*99/100]}, nil
}

func (m model) hops() []causal.Hop {
	var hops []causal.Hop
	for _, s := range m.stations {
		hops = append(hops, causal.Hop{
			Name: s.name, Cost: s.service,
			Slow: func(d time.Duration) { s.delay.Store(int64(d)) },
		})
	}
	return hops
}

// TestModelsWithKnownAnswers asks what each station would gain if it were a fifth
// faster, then makes it a fifth faster and looks.
func TestModelsWithKnownAnswers(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	tests := []struct {
		name  string
		model func() model
		gains []float64 // of the rate; as computed by hand
	}{
		{"one after the other", func() model {
			return model{1, []*station{newStation("a", 1, ms), newStation("b", 1, 3*ms), newStation("c", 1, ms)}}
		}, []float64{5/4.8 - 1, 5/4.4 - 1, 5/4.8 - 1}},
		{"a bottleneck", func() model {
			return model{16, []*station{newStation("a", 1, ms), newStation("b", 1, 2*ms), newStation("c", 1, ms)}}
		}, []float64{0, 0.25, 0}},
		{"a bottleneck with two servers", func() model {
			return model{16, []*station{newStation("a", 1, ms), newStation("b", 2, 4*ms), newStation("c", 1, ms)}}
		}, []float64{0, 0.25, 0}},
		{"two bottlenecks", func() model {
			return model{16, []*station{newStation("a", 1, 2*ms), newStation("b", 1, 2*ms), newStation("c", 1, ms)}}
		}, []float64{0, 0, 0}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := tt.model()
				e := causal.Experiment{Hops: m.hops(), Delays: []time.Duration{20 * time.Microsecond, 50 * time.Microsecond}, Rounds: 3, Seed: 1, Speedup: 0.2}
				answers, err := e.Run(t.Context(), m.measure)
				if err != nil {
					t.Fatal(err)
				}
				before, _ := m.measure(t.Context())
				for i, a := range answers {
					if a.Hop != m.stations[i].name || a.Speedup != 0.2 || math.Abs(a.Rate.Value-tt.gains[i]) > 0.01 {
						t.Errorf("%s: a gain of %+.3f is predicted, want %+.3f", a.Hop, a.Rate.Value, tt.gains[i])
					}
					faster := tt.model()
					faster.stations[i].service = faster.stations[i].service * 8 / 10
					after, _ := faster.measure(t.Context())
					if truth := after.Rate/before.Rate - 1; math.Abs(a.Rate.Value-truth) > 0.01 {
						t.Errorf("%s: a gain of %+.3f is predicted, the truth is %+.3f", a.Hop, a.Rate.Value, truth)
					}
					if truth := after.P99.Seconds()/before.P99.Seconds() - 1; math.Abs(a.P99.Value-truth) > 0.02 {
						t.Errorf("%s: a change of p99 by %+.3f is predicted, the truth is %+.3f", a.Hop, a.P99.Value, truth)
					}
					if a.Rate.Low > a.Rate.Value || a.Rate.High < a.Rate.Value {
						t.Errorf("%s: %+v is no interval", a.Hop, a.Rate)
					}
				}
			})
		})
	}
}

// TestNothingStaysSlow: however an experiment ends, the hops are as before.
func TestNothingStaysSlow(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for _, failAt := range []int{0, 1, 5} {
		slowed := map[string]time.Duration{}
		hop := func(name string) causal.Hop {
			return causal.Hop{Name: name, Cost: time.Second, Slow: func(d time.Duration) { slowed[name] = d }}
		}
		n, reported := 0, 0
		e := causal.Experiment{
			Hops: []causal.Hop{hop("a"), hop("b")}, Delays: []time.Duration{1, 2}, Rounds: 1, Speedup: 0.5,
			Done: func(done, total int) {
				reported = done
				if total != 7 {
					t.Errorf("%d measurements, want 7", total)
				}
			},
		}
		_, err := e.Run(t.Context(), func(context.Context) (causal.Observation, error) {
			if n++; n == failAt {
				return causal.Observation{}, broken
			}
			return causal.Observation{Rate: 1, P99: time.Second}, nil
		})
		if (failAt == 0) != (err == nil) || failAt > 0 && !errors.Is(err, broken) {
			t.Errorf("failing at %d: %v", failAt, err)
		}
		if slowed["a"] != 0 || slowed["b"] != 0 || failAt == 0 && reported != 7 {
			t.Errorf("failing at %d: %v stay slow, %d reported", failAt, slowed, reported)
		}
	}
}

func TestExperimentsThatCannotBe(t *testing.T) {
	t.Parallel()
	good := func() causal.Experiment {
		hop := causal.Hop{Name: "a", Slow: func(time.Duration) {}}
		return causal.Experiment{Hops: []causal.Hop{hop, hop}, Delays: []time.Duration{1}, Rounds: 1, Speedup: 0.2}
	}
	tests := []struct {
		name   string
		change func(*causal.Experiment)
		rate   float64
		want   string
	}{
		{"one hop", func(e *causal.Experiment) { e.Hops = e.Hops[:1] }, 1, "nothing to be compared"},
		{"no delays", func(e *causal.Experiment) { e.Delays = nil }, 1, "0 delays"},
		{"a delay of nothing", func(e *causal.Experiment) { e.Delays[0] = 0 }, 1, "a delay of 0s"},
		{"no rounds", func(e *causal.Experiment) { e.Rounds = 0 }, 1, "0 rounds"},
		{"all of it", func(e *causal.Experiment) { e.Speedup = 1 }, 1, "speedup of 1"},
		{"nothing observed", func(*causal.Experiment) {}, 0, "nothing was observed"},
	}
	for _, tt := range tests {
		e := good()
		tt.change(&e)
		_, err := e.Run(t.Context(), func(context.Context) (causal.Observation, error) {
			return causal.Observation{Rate: tt.rate, P99: 1}, nil
		})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestPointTakesItsTime(t *testing.T) {
	t.Parallel()
	var p causal.Point
	p.Pass() // at once
	p.Slow(2 * time.Millisecond)
	began := time.Now()
	p.Pass()
	if took := time.Since(began); took < 2*time.Millisecond {
		t.Errorf("passed after %v", took)
	}
}
