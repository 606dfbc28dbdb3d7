package measure

import (
	"context"
	"crypto/tls"
	"errors"
	"time"

	"github.com/corridor-enclave/corridor/bench/openloop"
	"github.com/corridor-enclave/corridor/bench/report"
)

const (
	// answerTimeout bounds one request; more than a loaded machine ever needs.
	answerTimeout = 30 * time.Second
	// patience is how long requests whose time has come may wait for a connection
	// at the end. A variant that cannot keep up fails with what it left unsent.
	patience = 2 * time.Second
)

// scheduled drives a load by our own generator, in this process: what it costs is
// not charged to anybody.
func scheduled(ctx context.Context, c cell, duration time.Duration, s *report.Sample) error {
	load := c.result.Load
	target := openloop.Target{
		URL: c.running.URL, Timeout: answerTimeout,
		HTTP2: load.Mode == report.HTTP2,
		Fresh: load.Mode == report.NewConnections || load.Mode == report.Resumed,
		// What is measured is where the time goes, not who answers.
		TLS: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12},
	}
	if load.Mode == report.Resumed {
		target.TLS.ClientSessionCache = tls.NewLRUClientSessionCache(0)
	}
	plan := openloop.Load{Connections: load.Connections, Duration: duration, Patience: patience, Sleep: openloop.PreciseSleep}
	if load.Offered > 0 {
		plan.Arrivals = openloop.Arrivals{Process: openloop.Poisson, Rate: load.Offered, Seed: 1}
	}
	result, err := openloop.Run(ctx, target, plan)
	if err != nil {
		return err
	}
	*s = result.Sample(time.Now().UTC())
	if s.Failure != "" {
		return errors.New(s.Failure)
	}
	return nil
}
