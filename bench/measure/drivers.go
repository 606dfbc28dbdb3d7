package measure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/corridor-enclave/corridor/bench/binaries"
	"github.com/corridor-enclave/corridor/bench/hops"
	"github.com/corridor-enclave/corridor/bench/ledger"
	"github.com/corridor-enclave/corridor/bench/loadgen"
	"github.com/corridor-enclave/corridor/bench/report"
)

const (
	// grace is how much longer than asked for a generator may take.
	grace = 40 * time.Second
	// inProcess is the generator of our own.
	inProcess = "openloop"
	// bitsPerOperation of bulk: one Gbit.
	bitsPerOperation = 1e9
)

// drivers are the load generators that the machine has, and the programs that took
// part.
type drivers struct {
	paths map[string]string // of generators, by name
	errs  map[string]error  // why one is not there
	files map[string]string // of programs, by name
	// syscalls says that they are counted.
	syscalls bool
}

// newDrivers looks for the generators of these loads. Wrk costs least; bombardier is
// built in its place where there is none, and where that cannot be built our own is.
func newDrivers(ctx context.Context, tools hops.Tools, loads []report.Load) drivers {
	d := drivers{paths: map[string]string{}, errs: map[string]error{}, files: map[string]string{}}
	for _, l := range loads {
		d.find(ctx, tools, l.Generator)
		if l.Mode == report.BesideBulk {
			d.find(ctx, tools, "iperf3")
		}
		if l.Generator == "wrk" && d.errs["wrk"] != nil {
			d.find(ctx, tools, string(binaries.Bombardier))
			d.find(ctx, tools, inProcess)
		}
	}
	return d
}

// find finds a generator once.
func (d drivers) find(ctx context.Context, tools hops.Tools, name string) {
	if d.paths[name] != "" || d.errs[name] != nil {
		return
	}
	var path string
	var err error
	switch p := binaries.Program(name); p {
	case binaries.Bombardier, binaries.Baton:
		path, err = tools.Built(ctx, p)
	case inProcess, hops.Loop, hops.Checked, hops.Holder:
		path, err = os.Executable()
	default:
		path, err = tools.Installed(name, name)
	}
	if err != nil {
		d.errs[name] = err
		return
	}
	d.paths[name] = path
}

// generator returns the generator that drives the load here: bombardier, or our own,
// stands in for wrk, and its figures are not comparable to wrk's.
func (d drivers) generator(l report.Load) (string, error) {
	if d.paths[l.Generator] != "" {
		return l.Generator, nil
	}
	if l.Generator == "wrk" {
		for _, instead := range []string{string(binaries.Bombardier), inProcess} {
			if d.paths[instead] != "" {
				return instead, nil
			}
		}
	}
	return "", d.errs[l.Generator]
}

func (d drivers) add(programs map[string]string) {
	for name, path := range programs {
		d.files[name] = path
	}
}

// sample loads the cell for some seconds and keeps the accounts meanwhile. Whatever
// goes wrong is in the sample's Failure.
func (d drivers) sample(ctx context.Context, c cell, seconds int) report.Sample {
	s := report.Sample{Started: time.Now().UTC()}
	if c.result.Load.Kind == report.Idle {
		if err := hold(ctx, c, &s); err != nil {
			return failed(s, c, err)
		}
		return s
	}
	before, err := ledger.Take(ctx, c.running.Accounts)
	if err != nil {
		return failed(s, c, err)
	}
	counted, err := d.count(c)
	if err != nil {
		return failed(s, c, err)
	}
	duration := time.Duration(seconds) * time.Second
	limited, cancel := context.WithTimeout(ctx, duration+grace)
	defer cancel()
	err = d.drive(limited, c, duration, &s)
	calls, failure := counted()
	if err = errors.Join(err, failure); err != nil {
		return failed(s, c, err)
	}
	after, err := ledger.Take(ctx, c.running.Accounts)
	if err != nil {
		return failed(s, c, err)
	}
	s.Processes, s.Foreign = after.Since(before)
	for i := range calls {
		s.Processes[i].SystemCalls = &calls[i]
	}
	operations := float64(s.OK)
	if c.result.Load.Kind == report.Bulk {
		operations = float64(s.Bytes) * 8 / bitsPerOperation
	}
	charge(&s, operations)
	return s
}

// count counts the system calls of the cell's processes, if that is wanted, until what
// it returns is called.
func (d drivers) count(c cell) (counted func() ([]int64, error), err error) {
	if !d.syscalls {
		return func() ([]int64, error) { return nil, nil }, nil
	}
	calls, err := ledger.CountCalls(c.running.Accounts)
	if err != nil {
		return nil, err
	}
	return calls.Stop, nil
}

// drive loads the cell as its load says.
func (d drivers) drive(ctx context.Context, c cell, duration time.Duration, s *report.Sample) error {
	switch {
	case c.result.Load.Generator == hops.Checked:
		return checked(ctx, c, duration, s)
	case c.result.Load.Kind == report.Bulk:
		return d.bulk(ctx, c, duration, s)
	case c.running.Work != nil:
		return repeat(ctx, c, duration, s)
	case c.result.Load.Mode == report.BesideBulk:
		return d.besideBulk(ctx, c, duration, s)
	case c.result.Load.Generator == inProcess:
		return scheduled(ctx, c, duration, s)
	}
	return d.requests(ctx, c, duration, s)
}

func failed(s report.Sample, c cell, err error) report.Sample {
	s.Failure, s.Values = strings.TrimSpace(err.Error()+"\n"+c.running.Dead()), nil
	return s
}

// requests drives a closed loop of requests. Anything but 2xx for all of them is a
// failure: then the figures are of something else.
func (d drivers) requests(ctx context.Context, c cell, duration time.Duration, s *report.Sample) error {
	load := loadgen.Load{URL: c.running.Asked(c.result.Load), Connections: c.result.Load.Connections, Duration: duration, Insecure: true, Fresh: c.result.Load.Mode == report.NewConnections}
	drive := map[string]func(context.Context, string, loadgen.Load) (loadgen.Result, error){
		"wrk": loadgen.Wrk, "bombardier": loadgen.Bombardier, "baton": loadgen.Baton, "hey": loadgen.Hey,
	}[c.result.Load.Generator]
	result, err := drive(ctx, d.paths[c.result.Load.Generator], load)
	if err != nil {
		return err
	}
	s.Seconds = result.Duration.Seconds()
	s.Sent, s.OK, s.NotOK, s.Errors = result.Requests, result.OK, result.NotOK, result.Errors
	if err := result.Clean(); err != nil {
		return err
	}
	s.Values = map[report.Metric]float64{report.Rate: result.Rate()}
	if result.Latency.P50 == 0 { // baton for a duration knows none
		return nil
	}
	s.Latency = &report.Latency{}
	for _, q := range []struct {
		q      float64
		d      time.Duration
		metric report.Metric
	}{{0.5, result.Latency.P50, report.P50}, {0.9, result.Latency.P90, report.P90}, {0.99, result.Latency.P99, report.P99}} {
		micros := float64(q.d.Nanoseconds()) / 1e3
		s.Values[q.metric] = micros
		s.Latency.Quantiles = append(s.Latency.Quantiles, report.Quantile{Q: q.q, Micros: micros})
	}
	return nil
}

// bulk drives flows from the client (downlink) or from the enclave (uplink). A flow
// is one operation that succeeds as a whole.
func (d drivers) bulk(ctx context.Context, c cell, duration time.Duration, s *report.Sample) error {
	load := c.result.Load
	t, err := loadgen.IPerf3(ctx, d.paths[load.Generator], loadgen.Flow{
		Address: c.running.Bulk, Streams: load.Connections, Duration: duration, Reverse: load.Direction == "uplink",
	})
	if err != nil {
		return fmt.Errorf("%s: %w", load.Name, err)
	}
	s.Seconds, s.Bytes = t.Duration.Seconds(), t.Bytes
	s.Sent, s.OK = int64(load.Connections), int64(load.Connections)
	s.Values = map[report.Metric]float64{report.Throughput: float64(t.Bytes) * 8 / bitsPerOperation / t.Duration.Seconds()}
	return nil
}

// besideBulk sends requests while a flow carries bulk the same way, from before the
// first until after the last.
func (d drivers) besideBulk(ctx context.Context, c cell, duration time.Duration, s *report.Sample) error {
	if d.errs["iperf3"] != nil {
		return d.errs["iperf3"]
	}
	bulk := c
	result := *c.result
	result.Load.Generator, result.Load.Connections = "iperf3", 1
	bulk.result = &result
	var g errgroup.Group
	g.Go(func() error { return d.bulk(ctx, bulk, duration+time.Second, new(report.Sample)) })
	err := scheduled(ctx, c, duration, s)
	return errors.Join(err, g.Wait())
}

// charge divides what the processes used by the operations.
func charge(s *report.Sample, operations float64) {
	add := func(m report.Metric, v float64) { s.Values[m] += v / operations }
	inside, mute := false, false
	for _, p := range s.Processes {
		if p.Role == report.App {
			add(report.AppCPU, p.UserMicros+p.SystemMicros)
		}
		if p.Role != report.Subject {
			continue
		}
		add(report.CPU, p.UserMicros+p.SystemMicros)
		if p.Inside {
			inside = true
		} else {
			add(report.OutsideCPU, p.UserMicros+p.SystemMicros)
		}
		add(report.User, p.UserMicros)
		add(report.System, p.SystemMicros)
		add(report.Switches, float64(p.Voluntary+p.Involuntary))
		s.Values[report.RSS] += float64(p.RSSBytes)
		if p.Reads != nil {
			add(report.Calls, float64(*p.Reads+*p.Writes))
			add(report.Copied, float64(*p.ReadBytes+*p.WrittenBytes))
		}
		if p.SystemCalls != nil {
			add(report.Syscalls, float64(*p.SystemCalls))
		}
		if p.Allocs == nil {
			mute = true
		} else {
			add(report.Allocs, float64(*p.Allocs))
			add(report.AllocBytes, float64(*p.AllocBytes))
		}
	}
	if mute { // a part of them is no figure
		delete(s.Values, report.Allocs)
		delete(s.Values, report.AllocBytes)
	}
	if !inside {
		delete(s.Values, report.OutsideCPU) // it is all of it
	}
}
