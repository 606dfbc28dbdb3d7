// Package measure runs a plan: it starts the variants of each hop, loads them in
// interleaved rounds, keeps accounts, and hands back a report. It knows neither what
// a hop is made of (bench/hops) nor what figures mean (bench/statistics).
package measure

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/corridor-enclave/corridor/bench/cores"
	"github.com/corridor-enclave/corridor/bench/hops"
	"github.com/corridor-enclave/corridor/bench/ledger"
	"github.com/corridor-enclave/corridor/bench/report"
	"github.com/corridor-enclave/corridor/bench/statistics"
)

// A Plan is what to measure.
type Plan struct {
	Title   string
	Command []string
	Hops    []hops.Hop
	// Variants and Loads keep only those with these names; empty keeps all.
	Variants, Loads []string
	Rounds          int
	Seconds, Warmup int
	Seed            uint64
	Tools           hops.Tools
	// Within is how long the rounds may take; 0 means as long as they do. Each hop has
	// its share, by the number of its samples, and leaves out rounds that would exceed it.
	Within time.Duration
	// Syscalls counts system calls, which costs each of them a little.
	Syscalls bool
	// Pin gives the generators the last core, and the others to all else.
	Pin bool
}

// A Progress is told how far a run is.
type Progress interface {
	// Note reports what happened beside the plan: a variant that is skipped, a
	// sample that failed.
	Note(text string)
	// Step reports that n of total samples are done, and what comes next.
	Step(n, total int, next string)
}

// A run is a plan under way.
type run struct {
	plan     Plan
	progress Progress
	report   *report.Report
	drivers  drivers
	done     int
	total    int
	last     string    // what the last sample said, in few words
	deadline time.Time // of the hop under way; zero if there is none
}

// A cell is one load on one variant that runs.
type cell struct {
	result  *report.Result
	running *hops.Running
}

// Run carries out the plan. It returns what was measured so far together with the
// context's error if that ends first; what it started is stopped in any case.
func Run(ctx context.Context, plan Plan, progress Progress) (_ *report.Report, err error) {
	if plan.Rounds < 1 || plan.Seconds < 1 || plan.Warmup < 0 {
		return nil, fmt.Errorf("measure: %d rounds of %d s after %d s of warming up", plan.Rounds, plan.Seconds, plan.Warmup)
	}
	if plan.Syscalls {
		if err := ledger.CanCountCalls(); err != nil {
			return nil, err
		}
	}
	if plan.Pin {
		all, err := aside(&plan.Tools)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, cores.Pin(all)) }()
	}
	r := &run{plan: plan, progress: progress, report: &report.Report{
		Schema: report.Schema, Title: plan.Title, Command: plan.Command, Started: time.Now().UTC(),
		Settings: report.Settings{
			Rounds: plan.Rounds, Seed: plan.Seed, Seconds: float64(plan.Seconds), Warmup: float64(plan.Warmup),
			Pinned: plan.Pin, Syscalls: plan.Syscalls,
		},
		Source: Source(ctx), Machine: Machine(), Results: []report.Result{},
	}}
	var loads []report.Load
	for _, h := range plan.Hops {
		loads = append(loads, h.Loads...)
	}
	r.drivers = newDrivers(ctx, plan.Tools, loads)
	r.drivers.syscalls = plan.Syscalls
	chosen := make([]hops.Hop, 0, len(plan.Hops))
	for _, h := range plan.Hops {
		h = r.choose(h)
		h.Fresh = h.Fresh || plan.Tools.KernelVSOCK
		chosen = append(chosen, h)
		r.total += len(h.Loads) * len(h.Variants) * plan.Rounds
	}
	began, all, sofar := time.Now(), r.total, 0
	for _, h := range chosen {
		sofar += len(h.Loads) * len(h.Variants) * plan.Rounds
		if plan.Within > 0 && all > 0 {
			r.deadline = began.Add(time.Duration(float64(plan.Within) * float64(sofar) / float64(all)))
		}
		if err = r.hop(ctx, h); err != nil {
			break
		}
	}
	r.report.Programs = r.drivers.programs(context.WithoutCancel(ctx))
	r.report.Seconds = time.Since(r.report.Started).Seconds()
	r.warn()
	return r.report, err
}

// aside moves this process, and so its generators, to the last core, and leaves the
// others to what it starts. It returns those that it had.
func aside(tools *hops.Tools) (all []int, err error) {
	if all, err = cores.Allowed(); err != nil {
		return nil, err
	}
	last := len(all) - 1
	if last < 1 {
		return nil, errors.New("measure: needs two cores to give the generators one (remedy: do not pin)")
	}
	tools.Cores = all[:last]
	return all, cores.Pin(all[last:])
}

// choose keeps of a hop what the plan names, and of its loads those that can be had.
func (r *run) choose(h hops.Hop) hops.Hop {
	var variants []hops.Variant
	for _, v := range h.Variants {
		if named(r.plan.Variants, v.Name) {
			variants = append(variants, v)
		}
	}
	var loads []report.Load
	for _, l := range h.Loads {
		if !named(r.plan.Loads, l.Name) {
			continue
		}
		have, err := r.drivers.generator(l)
		if err != nil {
			r.skip(h.Name, "", l.Name+": ", err)
			continue
		}
		l.Generator = have
		loads = append(loads, l)
	}
	h.Variants, h.Loads = variants, loads
	return h
}

func named(names []string, name string) bool {
	for _, n := range names {
		if n == name {
			return true
		}
	}
	return len(names) == 0
}

// skip notes what could not be had: a variant, or the load that which names.
func (r *run) skip(hop, variant, which string, err error) {
	s := report.Skipped{Hop: hop, Variant: variant, Reason: which + err.Error()}
	if missing := (*hops.Missing)(nil); errors.As(err, &missing) {
		s.Reason, s.Remedy = which+"needs "+missing.What, missing.Remedy
	}
	r.report.Skipped = append(r.report.Skipped, s)
	r.progress.Note(fmt.Sprintf("skipped %s: %s%v", strings.TrimSuffix(hop+"/"+variant, "/"), which, err))
}

// hop measures one hop: everything that is compared runs at the same time, and is
// loaded in turn.
func (r *run) hop(ctx context.Context, h hops.Hop) (err error) {
	if h.Fresh {
		return r.freshHop(ctx, h)
	}
	var cells []cell
	defer func() {
		for _, c := range cells {
			c.result.Summary = summarise(*c.result, r.plan.Seed)
			r.report.Results = append(r.report.Results, *c.result)
		}
	}()
	for _, v := range h.Variants {
		running, startErr := v.Start(ctx, r.plan.Tools)
		if ctx.Err() != nil {
			return errors.Join(ctx.Err(), stop(running))
		}
		if startErr != nil {
			r.skip(h.Name, v.Name, "", startErr)
			r.total -= len(h.Loads) * r.plan.Rounds
			continue
		}
		defer func() { err = errors.Join(err, running.Stop()) }()
		r.drivers.add(running.Programs)
		for _, l := range h.Loads {
			cells = append(cells, cell{&report.Result{Hop: h.Name, Variant: v.Name, Ours: v.Ours, Load: l}, running})
		}
	}
	if err := r.warmUp(ctx, cells); err != nil {
		return err
	}
	return r.rounds(ctx, cells)
}

func stop(running *hops.Running) error {
	if running == nil {
		return nil
	}
	return running.Stop()
}

// warmUp loads each variant once, by its last load, and forgets about it.
func (r *run) warmUp(ctx context.Context, cells []cell) error {
	for i, c := range cells {
		last := i+1 == len(cells) || cells[i+1].running != c.running
		if r.plan.Warmup == 0 || !last {
			continue
		}
		r.progress.Step(r.done, r.total, c.result.Hop+"/"+c.result.Variant+": warming up")
		r.drivers.sample(ctx, c, r.plan.Warmup)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// rounds takes one sample of each cell a round, each time in another order, so that
// what the machine does meanwhile, and what one load leaves for the next, hits
// all of them alike.
func (r *run) rounds(ctx context.Context, cells []cell) error {
	rng := r.order()
	for round := range r.plan.Rounds {
		began := time.Now()
		for _, i := range rng.Perm(len(cells)) {
			if err := r.take(ctx, cells[i], round); err != nil {
				return err
			}
		}
		if len(cells) > 0 && r.late(cells[0].result.Hop, round, time.Since(began)) {
			r.total -= len(cells) * (r.plan.Rounds - round - 1)
			break
		}
	}
	r.progress.Step(r.done, r.total, "")
	return nil
}

// late says that one more round, which takes as long as the last one, would end behind
// the hop's deadline.
func (r *run) late(hop string, round int, took time.Duration) bool {
	done := round + 1
	if r.deadline.IsZero() || done == r.plan.Rounds || time.Now().Add(took).Before(r.deadline) {
		return false
	}
	r.warning("%s: %d of %d rounds: more would have taken too long", hop, done, r.plan.Rounds)
	return true
}

func (r *run) order() *rand.Rand {
	return rand.New(rand.NewPCG(r.plan.Seed, uint64(len(r.report.Results))))
}

// take adds one sample to the cell.
func (r *run) take(ctx context.Context, c cell, round int) error {
	r.progress.Step(r.done, r.total, c.result.Key()+r.last)
	s := r.drivers.sample(ctx, c, r.plan.Seconds)
	if ctx.Err() != nil {
		return ctx.Err() // an interrupted sample is none
	}
	s.Round = round
	r.last = glance(c.result, s)
	if s.Failure != "" {
		r.progress.Note(c.result.Key() + ": " + s.Failure)
	}
	c.result.Samples = append(c.result.Samples, s)
	r.done++
	return nil
}

func summarise(r report.Result, seed uint64) map[report.Metric]report.Summary {
	summary := map[report.Metric]report.Summary{}
	for m, v := range r.Values() {
		summary[m] = statistics.Summarise(v, seed)
	}
	return summary
}

// glance is a sample in few words, for who watches.
func glance(r *report.Result, s report.Sample) string {
	if s.Failure != "" {
		return "; " + r.Variant + " just failed"
	}
	if r.Load.Kind == report.Idle {
		return fmt.Sprintf("; %s just held %d connections", r.Variant, s.OK)
	}
	if v, ok := s.Values[report.Throughput]; ok {
		return fmt.Sprintf("; %s just had %.2f Gbit/s", r.Variant, v)
	}
	return fmt.Sprintf("; %s just had %.0f/s at %.1f µs of CPU", r.Variant, s.Values[report.Rate], s.Values[report.CPU])
}
