package sidecar

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/corridor-enclave/corridor/enclave/front"
	"github.com/corridor-enclave/corridor/enclave/inbound"
	"github.com/corridor-enclave/corridor/enclave/supervise"
	reporter "github.com/corridor-enclave/corridor/enclave/telemetry"
	"github.com/corridor-enclave/corridor/revproxy"
	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/exposition"
	"github.com/corridor-enclave/corridor/tapstack/telemetry"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// signalStatus is added to a signal's number where an exit status is told, as
// shells do.
const signalStatus = 128

// Measurements are what the parts count, for the host to know. Parts add
// themselves as they begin, while it is asked for.
type measurements struct {
	mu    sync.Mutex
	parts []func([]telemetry.Value) []telemetry.Value

	requests  *exposition.Histogram // how long those for the app took
	appStarts atomic.Uint64
}

func newMeasurements() *measurements {
	m := &measurements{requests: exposition.NewDurations()}
	m.add(processValues)
	m.add(func(vs []telemetry.Value) []telemetry.Value {
		vs = append(vs, telemetry.Value{Metric: telemetry.AppStarts, Value: m.appStarts.Load()})
		return telemetry.AppendHistogram(vs, telemetry.RequestTime, m.requests.Snapshot())
	})
	return m
}

// add has a part asked from now on. It appends its values.
func (m *measurements) add(part func([]telemetry.Value) []telemetry.Value) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.parts = append(m.parts, part)
}

// collect asks all parts.
func (m *measurements) collect() []telemetry.Value {
	m.mu.Lock()
	parts := m.parts[:len(m.parts):len(m.parts)]
	m.mu.Unlock()
	var vs []telemetry.Value
	for _, part := range parts {
		vs = part(vs)
	}
	return vs
}

// WriteMetrics adds to a page what the host is told in numbers, for whoever measures a
// simulation.
func (s *Sidecar) WriteMetrics(page *exposition.Page) {
	values := map[uint16]uint64{}
	for _, v := range s.measurements.collect() {
		values[v.Metric] = v.Value
	}
	telemetry.Write(page, values)
}

func processValues(vs []telemetry.Value) []telemetry.Value {
	p := exposition.ReadProcess()
	return append(vs,
		telemetry.Value{Metric: telemetry.Goroutines, Value: p.Goroutines},
		telemetry.Value{Metric: telemetry.HeapBytes, Value: p.HeapBytes},
		telemetry.Value{Metric: telemetry.RuntimeBytes, Value: p.RuntimeBytes},
		telemetry.Value{Metric: telemetry.AllocatedBytes, Value: p.AllocatedBytes},
		telemetry.Value{Metric: telemetry.Allocations, Value: p.Allocations},
		telemetry.Value{Metric: telemetry.Collections, Value: p.Collections},
		telemetry.Value{Metric: telemetry.CPU, Value: uint64(p.CPU)},
		telemetry.Value{Metric: telemetry.ResidentBytes, Value: p.ResidentBytes},
		telemetry.Value{Metric: telemetry.OpenDescriptors, Value: p.OpenDescriptors},
	)
}

func linkValues(vs []telemetry.Value, s tapstack.LinkStatus) []telemetry.Value {
	connected := uint64(0)
	if s.Connected {
		connected = 1
	}
	vs = append(vs,
		telemetry.Value{Metric: telemetry.LinkConnected, Value: connected},
		telemetry.Value{Metric: telemetry.LinkConnects, Value: s.Connects},
		telemetry.Value{Metric: telemetry.LinkUplinkFrames, Value: s.Uplink.Frames},
		telemetry.Value{Metric: telemetry.LinkUplinkBytes, Value: s.Uplink.Bytes},
		telemetry.Value{Metric: telemetry.LinkDownlinkFrames, Value: s.Downlink.Frames},
		telemetry.Value{Metric: telemetry.LinkDownlinkBytes, Value: s.Downlink.Bytes},
		telemetry.Value{Metric: telemetry.LinkWrites, Value: s.Writes},
		telemetry.Value{Metric: telemetry.LinkLanes, Value: uint64(s.Lanes)},
		telemetry.Value{Metric: telemetry.LinkWaiting, Value: uint64(max(s.Waiting, 0))},
		telemetry.Value{Metric: telemetry.LinkFailures, Value: s.Failures},
		telemetry.Value{Metric: telemetry.LinkLossClosed, Value: s.Losses.Closed},
		telemetry.Value{Metric: telemetry.LinkLossCut, Value: s.Losses.Cut},
		telemetry.Value{Metric: telemetry.LinkLossFraming, Value: s.Losses.Framing},
		telemetry.Value{Metric: telemetry.LinkLossSilent, Value: s.Losses.Silent},
		telemetry.Value{Metric: telemetry.LinkLossOther, Value: s.Losses.Other},
	)
	vs = linkDrops(vs, s.Drops)
	for i, lane := range s.PerLane {
		vs = append(vs,
			telemetry.Value{Metric: telemetry.LaneUplink + uint16(i), Value: lane.Uplink.Frames},
			telemetry.Value{Metric: telemetry.LaneDownlink + uint16(i), Value: lane.Downlink.Frames})
	}
	vs = telemetry.AppendHistogram(vs, telemetry.LinkGatheredBytes, s.Sizes.Bytes)
	vs = telemetry.AppendHistogram(vs, telemetry.LinkGatheredFrames, s.Sizes.Frames)
	return telemetry.AppendHistogram(vs, telemetry.LinkReadBytes, s.Sizes.Reads)
}

// linkDrops are their number, for hosts that know no more, and each cause.
func linkDrops(vs []telemetry.Value, d tapstack.LinkDrops) []telemetry.Value {
	return append(vs,
		telemetry.Value{Metric: telemetry.LinkDrops, Value: d.Refused + d.Offload + d.TooLong + d.TooShort + d.Neighbour + d.Framing},
		telemetry.Value{Metric: telemetry.LinkDropRefused, Value: d.Refused},
		telemetry.Value{Metric: telemetry.LinkDropOffload, Value: d.Offload},
		telemetry.Value{Metric: telemetry.LinkDropTooLong, Value: d.TooLong},
		telemetry.Value{Metric: telemetry.LinkDropTooShort, Value: d.TooShort},
		telemetry.Value{Metric: telemetry.LinkDropNeighbour, Value: d.Neighbour},
		telemetry.Value{Metric: telemetry.LinkDropFraming, Value: d.Framing},
	)
}

func proxyValues(vs []telemetry.Value, c revproxy.Counts) []telemetry.Value {
	for _, cause := range revproxy.Causes() {
		if i := slices.Index(telemetry.ProxyCauses(), cause.String()); i >= 0 {
			vs = append(vs, telemetry.Value{Metric: uint16(telemetry.ProxyAnswers + i), Value: c.Causes[cause]})
		}
	}
	return append(vs,
		telemetry.Value{Metric: telemetry.ProxyRequests, Value: c.Requests},
		telemetry.Value{Metric: telemetry.ProxyClientGone, Value: c.ClientGone},
		telemetry.Value{Metric: telemetry.ProxyClientFaults, Value: c.ClientFaults},
		telemetry.Value{Metric: telemetry.ProxyAppFailures, Value: c.AppFailures},
	)
}

func frontValues(vs []telemetry.Value, f *front.Front) []telemetry.Value {
	open, closed, refused := f.Connections()
	return append(vs,
		telemetry.Value{Metric: telemetry.ProxyUnderWay, Value: uint64(f.UnderWay())},
		telemetry.Value{Metric: telemetry.ConnectionsOpen, Value: uint64(open)},
		telemetry.Value{Metric: telemetry.ConnectionsClosed, Value: closed},
		telemetry.Value{Metric: telemetry.ConnectionsRefused, Value: refused},
	)
}

// streamValues are those of all ports that take streams.
func (s *Sidecar) streamValues(vs []telemetry.Value) []telemetry.Value {
	var sum inbound.Counts
	count := func(c inbound.Counts) {
		sum.Open += c.Open
		sum.Waiting += c.Waiting
		sum.Refused += c.Refused
	}
	for _, l := range s.inbound {
		count(l.Counts())
	}
	for _, f := range s.forwarders {
		count(f.Counts())
	}
	return append(vs,
		telemetry.Value{Metric: telemetry.StreamsOpen, Value: uint64(sum.Open)},
		telemetry.Value{Metric: telemetry.StreamsWaiting, Value: uint64(sum.Waiting)},
		telemetry.Value{Metric: telemetry.StreamsRefused, Value: sum.Refused},
	)
}

// timed measures requests for the app. What upgraded connections take counts as
// well: it is the same to whoever waits for a place.
func (m *measurements) timed(proxy http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		// Also when it panics, which is how a proxy cuts an answer.
		defer func() { m.requests.ObserveDuration(time.Since(began)) }()
		proxy.ServeHTTP(w, r)
	})
}

// newReporter returns what tells the host.
func newReporter(cfg Config, m *measurements) *reporter.Reporter {
	t := cfg.Settings.Telemetry
	host := vsockconn.Addr{CID: cfg.Settings.Link.Parent, Port: t.Port}
	return reporter.New(reporter.Config{
		Mode:    t.Mode,
		Dial:    func(ctx context.Context) (net.Conn, error) { return cfg.Transport.Dial(ctx, host) },
		Collect: m.collect, Now: cfg.Now, Log: cfg.Log.With("part", "telemetry"),
	})
}

// runApp runs the app's process, and tells that it does.
func (s *Sidecar) runApp(ctx context.Context) error {
	s.measurements.appStarts.Add(1)
	s.reporter.Event(telemetry.AppBegun, 0)
	err := s.process.Run(ctx)
	s.reporter.Event(telemetry.AppEnded, exitStatus(err))
	return err
}

// exitStatus is how the app ended, as a shell would say it.
func exitStatus(err error) uint64 {
	var exit *supervise.ExitError
	switch {
	case err == nil:
		return 0
	case !errors.As(err, &exit):
		return 1
	case exit.Signal != 0:
		return signalStatus + uint64(exit.Signal)
	}
	return uint64(max(exit.Code, 0))
}
