package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/corridor-enclave/corridor/bench/crosscheck"
	"github.com/corridor-enclave/corridor/tapstack/settings"
)

func runCrosscheck(ctx context.Context, args, environ []string, stdout io.Writer) error {
	s := settings.New("bench crosscheck")
	connections := settings.Var(s, "connections", "32", "`number` of connections", strconv.Atoi)
	rounds := settings.Var(s, "rounds", "9", "`number` of rounds", strconv.Atoi)
	duration := settings.Var(s, "duration", "2s", "how `long` each load is, in whole seconds", parsePositive)
	tolerance := settings.Var(s, "tolerance", "0.05", "the `share` by which the two may differ in the median of all rounds", parseSpeedup)
	if done, err := load(s, args, environ, stdout); done {
		return err
	}
	for _, x := range []struct {
		name string
		bad  bool
		want string
	}{
		{"connections", *connections < 1, "at least 1"}, {"rounds", *rounds < 1, "at least 1"}, {"duration", *duration%time.Second != 0, "whole seconds"},
	} {
		if x.bad {
			s.Reject(x.name, "is not %s", x.want)
		}
	}
	if err := s.Err(); err != nil {
		return usageError{err}
	}
	wrk, err := exec.LookPath("wrk")
	if err != nil {
		return fmt.Errorf("bench crosscheck: needs wrk (remedy: apt-get install wrk): %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("bench crosscheck: %w", err)
	}
	r, err := crosscheck.Run(ctx, crosscheck.Config{Bench: self, Wrk: wrk, Connections: *connections, Rounds: *rounds, Duration: *duration, Out: stdout})
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "bench: median %.0f/s (%.0f to %.0f)\nwrk:   median %.0f/s (%.0f to %.0f)\n",
		r.Ours.Median, r.Ours.Low, r.Ours.High, r.Wrk.Median, r.Wrk.Low, r.Wrk.High)
	if err := r.Judge(*tolerance); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "bench sends %.3f of what wrk sends (%.3f to %.3f): within %.0f %%\n", r.Share.Median, r.Share.Low, r.Share.High, 100**tolerance)
	return nil
}
