// Package causal finds out what a way would gain if one of its hops were faster,
// without making it faster: it slows all the others down by a known small time and
// looks at what the whole then does (Curtsinger and Berger, "Coz: finding code that
// counts with causal profiling", 2015, with marked points in place of a patched
// runtime). It loads nothing itself; the caller's function does.
package causal

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/corridor-enclave/corridor/bench/report"
	"github.com/corridor-enclave/corridor/bench/statistics"
)

// A Hop is one stage of the way.
type Hop struct {
	Name string
	// Cost is what one operation spends in the hop alone, waiting not included. It
	// is what "a fifth faster" is a fifth of.
	Cost time.Duration
	// Slow makes the hop slower by that much for each operation, until it is called
	// again.
	Slow func(time.Duration)
}

// An Observation is how the whole way does.
type Observation struct {
	Rate float64 // operations a second
	P99  time.Duration
}

// A Measure loads the way and observes it. An error ends the experiment.
type Measure func(context.Context) (Observation, error)

// An Experiment is what to try.
type Experiment struct {
	Hops   []Hop
	Delays []time.Duration // small ones, each above zero
	Rounds int             // each with all combinations, in an order by Seed
	Seed   uint64
	// Speedup is the share, above 0 and below 1, of its Cost by which a hop would be
	// faster.
	Speedup float64
	// Done is called behind each measurement, if it is not nil.
	Done func(n, total int)
}

func (e Experiment) check() error {
	var errs []error
	if len(e.Hops) < 2 {
		errs = append(errs, fmt.Errorf("causal: %d hops: one has nothing to be compared with", len(e.Hops)))
	}
	if len(e.Delays) == 0 || e.Rounds < 1 {
		errs = append(errs, fmt.Errorf("causal: %d delays in %d rounds", len(e.Delays), e.Rounds))
	}
	for _, d := range e.Delays {
		if d <= 0 {
			errs = append(errs, fmt.Errorf("causal: a delay of %v", d))
		}
	}
	if !(e.Speedup > 0 && e.Speedup < 1) {
		errs = append(errs, fmt.Errorf("causal: a speedup of %g is not between 0 and 1", e.Speedup))
	}
	return errors.Join(errs...)
}

// everybody spares no hop, and nobody slows none.
const (
	everybody = -1
	nobody    = -2
)

// A trial slows every hop by delay, but the spared one.
type trial struct {
	delay  time.Duration
	spared int // the index of a hop, everybody or nobody
}

// A costs is what the whole spends on an operation: the time between two of them,
// and the p99, in seconds.
type costs struct{ cycle, p99 float64 }

// Run returns one answer for each hop, in their order. However it ends, no hop is
// slowed any more.
//
// With all hops slower by d an operation takes the whole T(all); with all but one,
// T(but h). Their difference, divided by d, is how much of a second that hop h
// saves arrives at the user: 1 if the way waits for h alone, 0 if it waits for
// others anyway. The slope through the origin over all delays is that share, once a
// round. What the hop would save by the speedup, times the share, comes off the
// whole.
func (e Experiment) Run(ctx context.Context, measure Measure) ([]report.Causal, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	defer e.slow(trial{spared: nobody})
	random := rand.New(rand.NewPCG(e.Seed, 0))
	gains := make([]gain, len(e.Hops))
	n := 0
	for range e.Rounds {
		trials := e.trials()
		seen := map[trial]costs{}
		for _, i := range random.Perm(len(trials)) {
			e.slow(trials[i])
			o, err := measure(ctx)
			if err == nil && (!(o.Rate > 0) || o.P99 <= 0) {
				err = errors.New("nothing was observed")
			}
			if err != nil {
				return nil, fmt.Errorf("causal: %s: %w", e.describe(trials[i]), err)
			}
			seen[trials[i]] = costs{1 / o.Rate, o.P99.Seconds()}
			if n++; e.Done != nil {
				e.Done(n, e.Rounds*len(trials))
			}
		}
		for h := range e.Hops {
			e.conclude(h, seen, &gains[h])
		}
	}
	answers := make([]report.Causal, len(e.Hops))
	for h, hop := range e.Hops {
		answers[h] = report.Causal{Hop: hop.Name, Speedup: e.Speedup, Rate: e.interval(gains[h].rate), P99: e.interval(gains[h].p99)}
	}
	return answers, nil
}

// trials are those of one round.
func (e Experiment) trials() []trial {
	all := []trial{{spared: nobody}}
	for _, d := range e.Delays {
		for spared := everybody; spared < len(e.Hops); spared++ {
			all = append(all, trial{d, spared})
		}
	}
	return all
}

func (e Experiment) slow(t trial) {
	for i, h := range e.Hops {
		if t.spared == nobody || t.spared == i {
			h.Slow(0)
		} else {
			h.Slow(t.delay)
		}
	}
}

func (e Experiment) describe(t trial) string {
	switch t.spared {
	case nobody:
		return "with no hop slower"
	case everybody:
		return fmt.Sprintf("with all hops %v slower", t.delay)
	}
	return fmt.Sprintf("with all hops but %s %v slower", e.Hops[t.spared].Name, t.delay)
}

// A gain is what each round said of one hop: relative changes.
type gain struct{ rate, p99 []float64 }

func (e Experiment) conclude(h int, seen map[trial]costs, g *gain) {
	var cycle, p99, squares float64
	for _, d := range e.Delays {
		all, but := seen[trial{d, everybody}], seen[trial{d, h}]
		cycle += d.Seconds() * (all.cycle - but.cycle)
		p99 += d.Seconds() * (all.p99 - but.p99)
		squares += d.Seconds() * d.Seconds()
	}
	saved := e.Speedup * e.Hops[h].Cost.Seconds()
	now := seen[trial{spared: nobody}]
	// No hop can take more off the whole than it has, nor all of it: what noise
	// claims beyond that is cut.
	off := math.Min(saved*cycle/squares, 0.9*now.cycle)
	g.rate = append(g.rate, now.cycle/(now.cycle-off)-1)
	g.p99 = append(g.p99, math.Max(-saved*p99/squares/now.p99, -1))
}

func (e Experiment) interval(values []float64) report.Interval {
	s := statistics.Summarise(values, e.Seed)
	return report.Interval{Value: s.Median, Low: s.Low, High: s.High}
}
