package telemetry

import "github.com/corridor-enclave/corridor/tapstack/exposition"

// A Code says what happened, by its number on the wire.
type Code uint16

// The events. Numbers are never used again for something else.
const (
	Serving   Code = 1 // every part of the sidecar runs
	Stopping  Code = 2 // it was asked to stop, or has to
	AppBegun  Code = 3 // the app's process was started
	AppEnded  Code = 4 // it ended; the value is its exit status, 128 and more for a signal
	NoModule  Code = 5 // there is no security module: nothing can be proven
	Reporting Code = 6 // a stream of telemetry begins; the value counts them
)

// String names the event as logs and metrics show it, or says that it is not
// known to this version.
func (c Code) String() string {
	switch c {
	case Serving:
		return "serving"
	case Stopping:
		return "stopping"
	case AppBegun:
		return "app-begun"
	case AppEnded:
		return "app-ended"
	case NoModule:
		return "no-module"
	case Reporting:
		return "reporting"
	}
	return "unknown"
}

// The metrics, by their numbers on the wire. They are never used again for
// something else.
const (
	LostLogs   = 1
	LostEvents = 2

	Goroutines      = 10
	HeapBytes       = 11
	RuntimeBytes    = 12
	AllocatedBytes  = 13
	Allocations     = 14
	Collections     = 15
	CPU             = 16
	ResidentBytes   = 17
	OpenDescriptors = 18

	LinkConnected      = 30
	LinkConnects       = 31
	LinkUplinkFrames   = 32
	LinkUplinkBytes    = 33
	LinkDownlinkFrames = 34
	LinkDownlinkBytes  = 35
	LinkWrites         = 36
	LinkDrops          = 37
	LinkLanes          = 38
	LinkWaiting        = 39
	LinkDropRefused    = 40
	LinkDropOffload    = 41
	LinkDropTooLong    = 42
	LinkDropTooShort   = 43
	LinkDropNeighbour  = 44
	LinkDropFraming    = 45

	ProxyRequests     = 50
	ProxyClientGone   = 51
	ProxyClientFaults = 52
	ProxyAppFailures  = 53
	ProxyUnderWay     = 54

	StreamsOpen    = 60
	StreamsWaiting = 61
	StreamsRefused = 62

	AppStarts = 70

	EgressOpen      = 80
	EgressConnected = 81
	EgressDenied    = 82
	EgressCrowded   = 83
	EgressFailed    = 84

	LinkFailures    = 90
	LinkLossClosed  = 91
	LinkLossCut     = 92
	LinkLossFraming = 93
	LinkLossSilent  = 94
	LinkLossOther   = 95

	// LaneUplink and LaneDownlink are the first of MaxLanes numbers each.
	LaneUplink   = 96
	LaneDownlink = 104
	MaxLanes     = 8

	ConnectionsOpen    = 120
	ConnectionsClosed  = 121
	ConnectionsRefused = 122

	// ProxyAnswers is the first number of one for each of ProxyCauses.
	ProxyAnswers = 130

	// These are the first numbers of histograms: one for each of its buckets, then
	// the sum.
	RequestTime        = 512
	LinkGatheredBytes  = 544
	LinkGatheredFrames = 560
	LinkReadBytes      = 576
)

// A Metric is one number's meaning: a sample on the host's page.
type Metric struct {
	Number  uint16
	Name    string
	Help    string
	Counter bool    // it only grows; else it is a gauge
	Unit    float64 // what a value of 1 is on the page
	Labels  []exposition.Label
}

// prefix begins the names of all that enclaves say of themselves.
const prefix = "corridor_enclave_"

func counter(n uint16, name, help string, labels ...exposition.Label) Metric {
	return Metric{Number: n, Name: prefix + name, Help: help, Counter: true, Unit: 1, Labels: labels}
}

func gauge(n uint16, name, help string, labels ...exposition.Label) Metric {
	return Metric{Number: n, Name: prefix + name, Help: help, Unit: 1, Labels: labels}
}

// Metrics is what an enclave may tell, but for Histograms. The host takes names, help and labels from here and
// nothing but numbers from an enclave.
func Metrics() []Metric {
	const (
		lost    = "Records that the enclave could not report, by kind."
		unmade  = "Connections to the outside that were not made: refused by the enclave's policy or for want of room, or by host or network."
		answers = "Requests that the enclave's proxy answered itself: the client was gone, at fault, or the app failed."
	)
	cpu := counter(CPU, "cpu_seconds_total", "User and system time of the sidecar.")
	cpu.Unit = 1e-9
	all := []Metric{
		counter(LostLogs, "lost_total", lost, exposition.With("kind", "log")),
		counter(LostEvents, "lost_total", lost, exposition.With("kind", "event")),
		gauge(Goroutines, "goroutines", "Goroutines of the sidecar."),
		gauge(HeapBytes, "heap_bytes", "Heap of the sidecar."),
		gauge(RuntimeBytes, "runtime_bytes", "Memory that the sidecar's runtime has mapped."),
		counter(AllocatedBytes, "allocated_bytes_total", "Bytes that the sidecar ever allocated."),
		counter(Allocations, "allocations_total", "Objects that the sidecar ever allocated."),
		counter(Collections, "collections_total", "Garbage collections of the sidecar."),
		cpu,
		gauge(ResidentBytes, "resident_memory_bytes", "Memory of the sidecar in RAM."),
		gauge(OpenDescriptors, "open_fds", "File descriptors of the sidecar."),
		counter(ProxyRequests, "requests_total", "Requests for the app."),
		counter(ProxyClientGone, "requests_failed_total", answers, exposition.With("cause", "client-gone")),
		counter(ProxyClientFaults, "requests_failed_total", answers, exposition.With("cause", "client-fault")),
		counter(ProxyAppFailures, "requests_failed_total", answers, exposition.With("cause", "app-failure")),
		gauge(ProxyUnderWay, "requests", "Requests under way, those for the enclave itself included."),
		gauge(StreamsOpen, "streams", "Connections of clients by the stream road.", exposition.With("state", "open")),
		gauge(StreamsWaiting, "streams", "Connections of clients by the stream road.", exposition.With("state", "waiting")),
		counter(StreamsRefused, "streams_refused_total", "Streams that the enclave refused, or that began wrong."),
		counter(AppStarts, "app_starts_total", "How often the app was started."),
		gauge(EgressOpen, "egress_connections", "Connections to the outside beside the link."),
		counter(EgressConnected, "egress_connections_total", "Connections made to the outside beside the link."),
		counter(EgressDenied, "egress_refused_total", unmade, exposition.With("cause", "policy")),
		counter(EgressCrowded, "egress_refused_total", unmade, exposition.With("cause", "crowded")),
		counter(EgressFailed, "egress_refused_total", unmade, exposition.With("cause", "failed")),
	}
	all = append(all, frontMetrics(counter, gauge)...)
	return append(all, linkMetrics()...)
}

// A making makes a metric out of a number, a name and labels.
type making func(number uint16, name, help string, labels ...exposition.Label) Metric

// frontMetrics are those of clients' connections and of the proxy's own answers.
func frontMetrics(counter, gauge making) []Metric {
	all := []Metric{
		gauge(ConnectionsOpen, "connections", "Connections of clients to the enclave's front."),
		counter(ConnectionsClosed, "connections_closed_total", "Idle connections of clients that the enclave closed to make room for others."),
		counter(ConnectionsRefused, "connections_refused_total", "Connections of clients that the enclave closed at once for want of room."),
	}
	for i, cause := range ProxyCauses() {
		all = append(all, counter(uint16(ProxyAnswers+i), "proxy_answers_total", "Requests that the enclave's proxy answered itself, by the error type of their Proxy-Status.", exposition.With("cause", cause)))
	}
	return all
}

// ProxyCauses are the error types of RFC 9209 section 2.3 with which an enclave's proxy
// answers, in the order of their numbers. New ones are added behind the last.
func ProxyCauses() []string {
	return []string{
		"connection_refused",
		"connection_timeout",
		"connection_terminated",
		"connection_limit_reached",
		"destination_unavailable",
		"http_request_error",
		"http_request_denied",
		"http_response_header_section_size",
		"http_response_timeout",
		"http_upgrade_failed",
		"http_protocol_error",
		"proxy_loop_detected",
	}
}

// A Histogram is the meaning of several numbers: from First on those of its buckets,
// then that of the sum.
type Histogram struct {
	First      uint16
	Name, Help string
	Empty      exposition.Snapshot // with the bounds
}

// RequestTimes is the histogram of how long requests took.
func RequestTimes() Histogram {
	return Histogram{RequestTime, prefix + "request_seconds", "How long requests for the app took in the enclave, to the last byte.", exposition.NewDurations().Snapshot()}
}

// Histograms is what an enclave may tell beside Metrics.
func Histograms() []Histogram {
	sizes, counts := exposition.NewSizes().Snapshot(), exposition.NewCounts().Snapshot()
	return []Histogram{
		RequestTimes(),
		{LinkGatheredBytes, prefix + "link_gathered_bytes", "Bytes that the enclave's device had ready at a time, and that left together.", sizes},
		{LinkGatheredFrames, prefix + "link_gathered_frames", "Frames that the enclave's device had ready at a time, and that left together.", counts},
		{LinkReadBytes, prefix + "link_read_bytes", "Bytes of a read of the link in the enclave.", sizes},
	}
}

// AppendHistogram appends the values of a histogram whose first number is given.
func AppendHistogram(dst []Value, first uint16, s exposition.Snapshot) []Value {
	for i, n := range s.Counts {
		dst = append(dst, Value{first + uint16(i), n})
	}
	return append(dst, Value{first + uint16(len(s.Counts)), s.Sum})
}

// Of is the reverse: it finds the values of the histogram; ok is false if there is
// none.
func (h Histogram) Of(values map[uint16]uint64) (s exposition.Snapshot, ok bool) {
	s = h.Empty
	s.Counts = make([]uint64, len(h.Empty.Counts))
	for i := range s.Counts {
		n, told := values[h.First+uint16(i)]
		s.Counts[i], ok = n, ok || told
	}
	s.Sum = values[h.First+uint16(len(s.Counts))]
	return s, ok
}

// Known returns the numbers that mean something.
func Known() map[uint16]bool {
	known := map[uint16]bool{}
	for _, m := range Metrics() {
		known[m.Number] = true
	}
	for _, h := range Histograms() {
		for _, v := range AppendHistogram(nil, h.First, h.Empty) {
			known[v.Metric] = true
		}
	}
	return known
}
