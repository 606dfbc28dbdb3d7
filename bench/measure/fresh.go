package measure

import (
	"context"
	"errors"
	"time"

	"github.com/corridor-enclave/corridor/bench/hops"
	"github.com/corridor-enclave/corridor/bench/report"
)

// freshHop measures a hop whose samples are each of processes that were started for
// it alone, one variant at a time.
func (r *run) freshHop(ctx context.Context, h hops.Hop) error {
	results := make([][]*report.Result, len(h.Variants)) // nil for what was skipped
	for i, v := range h.Variants {
		for _, l := range h.Loads {
			results[i] = append(results[i], &report.Result{Hop: h.Name, Variant: v.Name, Ours: v.Ours, Load: l})
		}
	}
	defer func() {
		for _, of := range results {
			for _, result := range of {
				result.Summary = summarise(*result, r.plan.Seed)
				r.report.Results = append(r.report.Results, *result)
			}
		}
	}()
	rng := r.order()
	for round := range r.plan.Rounds {
		began := time.Now()
		for _, i := range rng.Perm(len(results)) {
			err := r.fresh(ctx, h.Variants[i], results[i], round)
			if missing := (*hops.Missing)(nil); errors.As(err, &missing) {
				r.skip(h.Name, h.Variants[i].Name, "", err)
				r.total -= len(h.Loads) * (r.plan.Rounds - round)
				results[i] = nil
				continue
			}
			if err != nil {
				return err
			}
		}
		if r.late(h.Name, round, time.Since(began)) {
			for _, of := range results {
				r.total -= len(of) * (r.plan.Rounds - round - 1)
			}
			break
		}
	}
	r.progress.Step(r.done, r.total, "")
	return nil
}

// fresh starts the variant, takes a sample of each load, and stops it. Why it did not
// start is what the samples of this round say.
func (r *run) fresh(ctx context.Context, v hops.Variant, results []*report.Result, round int) (err error) {
	if len(results) == 0 {
		return nil
	}
	r.progress.Step(r.done, r.total, results[0].Hop+"/"+v.Name+": starting")
	running, err := v.Start(ctx, r.plan.Tools)
	if ctx.Err() != nil {
		return errors.Join(ctx.Err(), stop(running))
	}
	if missing := (*hops.Missing)(nil); errors.As(err, &missing) {
		return err
	}
	if err != nil {
		for _, result := range results {
			r.progress.Note(result.Key() + ": " + err.Error())
			result.Samples = append(result.Samples, report.Sample{Round: round, Failure: err.Error()})
			r.done++
		}
		return nil
	}
	defer func() { err = errors.Join(err, running.Stop()) }()
	r.drivers.add(running.Programs)
	if first := results[0]; r.plan.Warmup > 0 && first.Load.Kind != report.Idle {
		r.drivers.sample(ctx, cell{first, running}, r.plan.Warmup)
	}
	for _, result := range results {
		if err := r.take(ctx, cell{result, running}, round); err != nil {
			return err
		}
	}
	return nil
}
