// Package report is what a measurement leaves behind: one JSON document, written
// by the commands that measure and read by those that compare, judge and draw.
// It measures nothing and computes nothing; bench/statistics does. SCHEMA.md
// beside it describes the document for readers who do not know Go.
package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// Schema is the version of the document that this package writes. A field that is
// added keeps it; one that changes its meaning raises it.
const Schema = 1

// A Report is everything that one run of bench found.
type Report struct {
	Schema   int       `json:"schema"`
	Title    string    `json:"title"`   // what was asked for: "bench proxy"
	Command  []string  `json:"command"` // as it was typed
	Started  time.Time `json:"started"`
	Seconds  float64   `json:"seconds"` // of the whole run
	Source   Source    `json:"source"`
	Machine  Machine   `json:"machine"`
	Settings Settings  `json:"settings"`
	Programs []Program `json:"programs"`

	Results []Result  `json:"results"`
	Curves  []Curve   `json:"curves,omitempty"`
	Causal  []Causal  `json:"causal,omitempty"`
	Skipped []Skipped `json:"skipped,omitempty"`
	// Warnings are what a reader has to know before believing a figure, in the
	// order in which they arose.
	Warnings []string `json:"warnings,omitempty"`
}

// A Source says what was measured. Commit is empty outside a checkout.
type Source struct {
	Commit  string `json:"commit,omitempty"`
	Changed bool   `json:"changed"` // the checkout had changes that Commit lacks
	Go      string `json:"go"`
}

// A Machine is where the figures come from: they mean little anywhere else.
type Machine struct {
	OS     string `json:"os"`
	Arch   string `json:"arch"`
	Kernel string `json:"kernel"`
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Memory int64  `json:"memory_bytes"`
	// Emulated says that another machine played this one, instruction by instruction:
	// its figures compare with those of the same report alone.
	Emulated bool `json:"emulated,omitempty"`
}

// Settings are how it was measured.
type Settings struct {
	Rounds  int     `json:"rounds"`            // each variant once a round
	Seed    uint64  `json:"seed"`              // of the order within a round, and of the intervals
	Seconds float64 `json:"seconds_per_load"`  // of measuring, without warming up
	Warmup  float64 `json:"seconds_of_warmup"` // before each
	// Pinned says that generators had the last core, and what they loaded the others.
	Pinned bool `json:"pinned,omitempty"`
	// Syscalls says that system calls were counted, which costs each of them a little.
	Syscalls bool `json:"counted_syscalls,omitempty"`
}

// A Program is a binary that took part.
type Program struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"` // as it calls itself
	SHA256  string `json:"sha256,omitempty"`  // of the file
}

// A Result is one variant of one hop under one load.
type Result struct {
	Hop     string `json:"hop"`     // what is measured: "proxy", "link"
	Variant string `json:"variant"` // by what it is done: "corridor", "nginx"
	Load    Load   `json:"load"`
	// Ours says that the variant is made of the sources that are measured; the others
	// are controls, which change only if the machine does.
	Ours bool `json:"ours"`

	Samples []Sample           `json:"samples"` // one a round
	Summary map[Metric]Summary `json:"summary"` // of the samples that did not fail
}

// Key names a result within a report.
func (r Result) Key() string { return r.Hop + "/" + r.Variant + "/" + r.Load.Name }

// A Load is what was sent through a hop.
type Load struct {
	Name        string  `json:"name"`      // within its hop: "16 connections"
	Generator   string  `json:"generator"` // "bombardier", "iperf3", "openloop"
	Kind        Kind    `json:"kind"`
	Connections int     `json:"connections"`
	Offered     float64 `json:"offered_per_second,omitempty"` // open loop: requests that should start each second
	BodyBytes   int64   `json:"body_bytes,omitempty"`
	Streams     int     `json:"streams,omitempty"`   // of HTTP/2: requests at a time on each connection; 0 means one
	Direction   string  `json:"direction,omitempty"` // of bulk: "uplink" or "downlink"
	// Mode says how connections are used; empty is HTTP/1.1 on connections that are kept.
	Mode Mode `json:"mode,omitempty"`
}

// A Kind says what one operation of a load is, and so what its figures mean.
type Kind string

// The kinds of load.
const (
	Requests  Kind = "requests"  // an operation is a request that was answered with 2xx
	Bulk      Kind = "bulk"      // an operation is a Gbit that arrived
	Documents Kind = "documents" // an operation is an attestation document
	Idle      Kind = "idle"      // an operation is a connection that is kept open, silent
)

// A Mode is how a load uses its connections.
type Mode string

// The modes beside the usual one.
const (
	NewConnections Mode = "new"     // one for each request, with all of its handshakes
	Resumed        Mode = "resumed" // the same, with TLS sessions that are resumed
	HTTP2          Mode = "http2"   // many requests at a time on few connections
	BesideBulk     Mode = "beside"  // while a flow carries as much as it can the same way
)

// A Sample is one load on one variant in one round.
type Sample struct {
	Round   int       `json:"round"` // from 0
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"` // as the generator counts them

	Sent   int64 `json:"sent"`            // operations that were begun
	OK     int64 `json:"ok"`              // that succeeded
	NotOK  int64 `json:"not_ok"`          // that were answered otherwise
	Errors int64 `json:"errors"`          // that got no answer
	Bytes  int64 `json:"bytes,omitempty"` // of bulk, as they arrived

	// Failure says why the sample counts for nothing: a generator that failed, an
	// answer that was no 2xx, a process that died. Then there are no Values.
	Failure string `json:"failure,omitempty"`

	Values    map[Metric]float64 `json:"values,omitempty"`
	Latency   *Latency           `json:"latency,omitempty"`
	Processes []Process          `json:"processes,omitempty"`
	// Foreign is the share of all cores, 0 to 1, that processes outside of the
	// measurement used meanwhile.
	Foreign float64 `json:"foreign_cpu"`
}

// A Latency is how long answers took, as finely as the generator tells: Buckets
// if it keeps a histogram, Quantiles in any case.
type Latency struct {
	Quantiles []Quantile `json:"quantiles"`         // rising
	Buckets   []Bucket   `json:"buckets,omitempty"` // rising, none empty
}

// A Quantile says that the share Q, 0 to 1, of the answers took at most Micros.
type Quantile struct {
	Q      float64 `json:"q"`
	Micros float64 `json:"us"`
}

// A Bucket counts the answers that took at most Micros and more than the bucket
// before.
type Bucket struct {
	Micros float64 `json:"us"`
	Count  int64   `json:"n"`
}

// A Process is what one process of a hop, with its children, used during a sample.
// A count is nil where the machine or the process does not tell.
type Process struct {
	Name string `json:"name"` // "enclave-sim", "app", "bombardier"
	Role Role   `json:"role"`
	// Inside says that it runs in the enclave's place.
	Inside bool `json:"inside,omitempty"`

	UserMicros   float64 `json:"user_us"`
	SystemMicros float64 `json:"system_us"`
	Voluntary    int64   `json:"voluntary_switches"`
	Involuntary  int64   `json:"involuntary_switches"`
	RSSBytes     int64   `json:"rss_bytes"` // at the end
	PSSBytes     *int64  `json:"pss_bytes,omitempty"`
	GrownBytes   int64   `json:"grown_bytes,omitempty"` // by which its own memory grew meanwhile
	Reads        *int64  `json:"read_calls,omitempty"`  // read(2) and readv(2), by /proc/PID/io
	Writes       *int64  `json:"write_calls,omitempty"` // likewise
	ReadBytes    *int64  `json:"read_bytes,omitempty"`
	WrittenBytes *int64  `json:"written_bytes,omitempty"`
	SystemCalls  *int64  `json:"system_calls,omitempty"` // all of them, if they were counted
	Allocs       *int64  `json:"allocs,omitempty"`       // objects, by Go's runtime/metrics
	AllocBytes   *int64  `json:"alloc_bytes,omitempty"`
}

// A Role says on whose account a process's work goes.
type Role string

// The roles.
const (
	Subject   Role = "subject"   // part of what is measured
	App       Role = "app"       // what stands behind it
	Generator Role = "generator" // what loads it
)

// A Summary is a metric over the rounds of a result.
type Summary struct {
	N      int     `json:"n"`
	Median float64 `json:"median"`
	Low    float64 `json:"low"` // of the interval that holds the median with 95 %
	High   float64 `json:"high"`
	// Spread is the distance of the quartiles, divided by the median.
	Spread float64 `json:"spread"`
	// Noisy says that the spread is beyond what lets the figure be told apart.
	Noisy bool `json:"noisy,omitempty"`
}

// Skipped is what was asked for and could not be had, and what would help.
type Skipped struct {
	Hop     string `json:"hop"`
	Variant string `json:"variant,omitempty"` // empty means the whole hop
	Reason  string `json:"reason"`
	Remedy  string `json:"remedy,omitempty"`
}

// Write writes the report into the named file as a whole or not at all.
func Write(path string, r *Report) error {
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return fmt.Errorf("report: encode: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".report-")
	if err != nil {
		return fmt.Errorf("report: write %s: %w", path, err)
	}
	defer os.Remove(f.Name()) // does nothing once renamed
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return fmt.Errorf("report: write %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("report: write %s: %w", path, err)
	}
	return nil
}

// Read reads and checks the named file.
func Read(path string) (*Report, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	r, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%w (in %s)", err, path)
	}
	return r, nil
}

// Parse reads a report and refuses one that this version does not understand or
// that contradicts itself. Fields that it does not know are passed over: a newer
// bench may have added them.
func Parse(text []byte) (*Report, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	var r Report
	if err := decoder.Decode(&r); err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, errors.New("report: something follows the document")
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	return &r, nil
}
