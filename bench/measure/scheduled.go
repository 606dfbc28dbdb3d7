package measure

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/corridor-enclave/corridor/bench/openloop"
	"github.com/corridor-enclave/corridor/bench/report"
	"github.com/corridor-enclave/corridor/bench/statistics"
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
	dial := c.running.Dial
	if load.Kind == report.Documents {
		dial = fromManyClients(c.running.URL)
	}
	target := openloop.Target{
		URL: c.running.Asked(load), Accept: c.running.Accept, Timeout: answerTimeout, Dial: dial,
		HTTP2: load.Mode == report.HTTP2, Streams: load.Streams,
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

// fromManyClients gives each connection an address of its own, all of them loopback:
// the enclave makes only so many documents a second for one client.
func fromManyClients(target string) func(context.Context) (net.Conn, error) {
	var clients atomic.Uint32
	return func(ctx context.Context) (net.Conn, error) {
		u, err := url.Parse(target)
		if err != nil {
			return nil, err
		}
		n := clients.Add(1)
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, byte(n>>8), byte(n))}}
		return d.DialContext(ctx, "tcp", u.Host)
	}
}

// repeat does a variant's work in this process until the time is over.
func repeat(ctx context.Context, c cell, duration time.Duration, s *report.Sample) error {
	began := time.Now()
	var took []float64
	for time.Since(began) < duration {
		start := time.Now()
		if err := c.running.Work(ctx); err != nil {
			return err
		}
		took = append(took, float64(time.Since(start).Nanoseconds())/1e3)
	}
	s.Seconds = time.Since(began).Seconds()
	s.Sent, s.OK = int64(len(took)), int64(len(took))
	s.Values = map[report.Metric]float64{
		report.Rate: float64(len(took)) / s.Seconds,
		report.P50:  statistics.Quantile(took, 0.5), report.P99: statistics.Quantile(took, 0.99),
	}
	return nil
}
