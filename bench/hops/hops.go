// Package hops knows what can be measured: each hop of the corridor, the variants
// that do the same work, ours and others', and how to start them. It sends no load
// and keeps no accounts; bench/measure does.
package hops

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/corridor-enclave/corridor/bench/report"
)

// A Hop is one leg of the way, or a way.
type Hop struct {
	Name  string
	About string // one line for the reader of a table
	Loads []report.Load
	// Baseline is the variant that ratios are told against.
	Baseline string
	Variants []Variant
	// Fresh says that each sample is of processes that were started for it.
	Fresh bool
}

// A Variant is one way to do a hop's work.
type Variant struct {
	Name string
	// Ours says that it is made of the sources that are measured.
	Ours  bool
	start func(*Setup) error
}

// A Missing error says what a variant needs that the machine lacks. The rest of the
// measurement goes on without it.
type Missing struct{ What, Remedy string }

// Error implements error.
func (m *Missing) Error() string { return fmt.Sprintf("hops: needs %s (remedy: %s)", m.What, m.Remedy) }

// All returns every hop, in the order of the way.
func All() []Hop {
	return []Hop{generatorHop(), transportHop(), proxyHop(), h2cHop(), tlsHop(), linkHop(), streamHop(), idleHop(), wayHop(), attestHop(), evidenceHop(), verifyHop()}
}

// Find returns the hops with these names, in the order of the way.
func Find(names []string) ([]Hop, error) {
	var found []Hop
	for _, h := range All() {
		if slices.Contains(names, h.Name) {
			found = append(found, h)
		}
	}
	if len(found) != len(names) {
		return nil, fmt.Errorf("hops: of %q some are unknown or named twice: there are %q", names, Names())
	}
	return found, nil
}

// Names returns the names of all hops.
func Names() []string {
	var names []string
	for _, h := range All() {
		names = append(names, h.Name)
	}
	return names
}

// Start starts a variant and returns when it answers. What it started so far is
// stopped if it fails; a Missing error says that it could not even begin.
func (v Variant) Start(ctx context.Context, tools Tools) (*Running, error) {
	s, err := newSetup(ctx, tools)
	if err != nil {
		return nil, err
	}
	err = v.start(s)
	if err == nil && s.running.URL != "" {
		err = s.untilAnswered()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("hops: start %s: %w", v.Name, err), s.running.Stop())
	}
	return s.running, nil
}

// requestLoads are closed loops of small requests, driven by wrk.
func requestLoads(connections ...int) []report.Load {
	var loads []report.Load
	for _, n := range connections {
		name := fmt.Sprintf("%d connections", n)
		if n == 1 {
			name = "1 connection"
		}
		loads = append(loads, report.Load{Name: name, Generator: "wrk", Kind: report.Requests, Connections: n, BodyBytes: 12})
	}
	return loads
}

// bodyLoad is a closed loop of answers of so many KiB, driven by wrk.
func bodyLoad(kib int64, connections int) report.Load {
	l := requestLoads(connections)[0]
	l.Name, l.BodyBytes = fmt.Sprintf("%d KiB on %s", kib, l.Name), kib<<10
	return l
}

// openLoad is so many requests a second, at the times of independent users, whatever
// becomes of them. Its latency is what users wait.
func openLoad(rate float64, mode report.Mode) report.Load {
	name := fmt.Sprintf("%g/s", rate)
	if mode != "" {
		name += map[report.Mode]string{report.NewConnections: " on new connections", report.Resumed: " on resumed sessions"}[mode]
	}
	return report.Load{Name: name, Generator: "openloop", Kind: report.Requests, Connections: 64, Offered: rate, BodyBytes: 12, Mode: mode}
}

// newConnectionsLoad is a closed loop of so many clients that connect anew for each
// request.
func newConnectionsLoad(clients int) report.Load {
	return report.Load{
		Name: fmt.Sprintf("%d clients on new connections", clients), Generator: "openloop", Kind: report.Requests,
		Connections: clients, BodyBytes: 12, Mode: report.NewConnections,
	}
}

// manyConnectionsLoad is the same by wrk, which leaves more of the machine to what is
// measured.
func manyConnectionsLoad(clients int) report.Load {
	l := newConnectionsLoad(clients)
	l.Generator, l.Name = "wrk", l.Name+" by wrk"
	return l
}

// besideBulkLoad is a few requests a second on connections that are kept, while a
// flow carries as much as it can in one direction.
func besideBulkLoad(direction string) report.Load {
	return report.Load{
		Name: "small beside bulk " + direction, Generator: "openloop", Kind: report.Requests,
		Connections: 16, Offered: 200, BodyBytes: 12, Mode: report.BesideBulk, Direction: direction,
	}
}

// http2Load is a closed loop of so many requests at a time on one connection.
func http2Load(streams int) report.Load {
	return report.Load{
		Name: fmt.Sprintf("%d streams of HTTP/2", streams), Generator: "openloop", Kind: report.Requests,
		Connections: 1, Streams: streams, BodyBytes: 12, Mode: report.HTTP2,
	}
}

// http2PageLoad is the same with answers of so many bytes.
func http2PageLoad(streams int, size int64) report.Load {
	l := http2Load(streams)
	l.Name, l.BodyBytes = fmt.Sprintf("%d KB on %s", size/1000, l.Name), size
	return l
}

// withGenerator is the same loads by another generator.
func withGenerator(generator string, loads []report.Load) []report.Load {
	for i := range loads {
		loads[i].Generator, loads[i].Name = generator, loads[i].Name+" by "+generator
	}
	return loads
}

// bulkLoad is a number of flows that carry as much as they can.
func bulkLoad(flows int, direction string) report.Load {
	name := fmt.Sprintf("%d flows %s", flows, direction)
	if flows == 1 {
		name = "1 flow " + direction
	}
	return report.Load{Name: name, Generator: "iperf3", Kind: report.Bulk, Connections: flows, Direction: direction}
}

// Holder is the generator that opens connections and leaves them alone.
const Holder = "holder"

// Checked is the generator of bulk that comes from the app itself, with a checksum over
// each block.
const Checked = "checked"

// checkedLoad is one such flow.
func checkedLoad() report.Load {
	return report.Load{Name: "checked " + uplink, Generator: Checked, Kind: report.Bulk, Connections: 1, Direction: uplink}
}

// The directions of bulk.
const (
	uplink   = "uplink"
	downlink = "downlink"
)
