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

	// RequestTime is the first number of a histogram: one for each of its
	// buckets, then the sum.
	RequestTime = 512
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

// Metrics is what an enclave may tell, in the order of numbers, but for the
// histogram RequestTime. The host takes names, help and labels from here and
// nothing but numbers from an enclave.
func Metrics() []Metric {
	counter := func(n uint16, name, help string, labels ...exposition.Label) Metric {
		return Metric{Number: n, Name: prefix + name, Help: help, Counter: true, Unit: 1, Labels: labels}
	}
	gauge := func(n uint16, name, help string, labels ...exposition.Label) Metric {
		return Metric{Number: n, Name: prefix + name, Help: help, Unit: 1, Labels: labels}
	}
	const (
		lost    = "Records that the enclave could not report, by kind."
		frames  = "Ethernet frames as the enclave counts them."
		bytes   = "Bytes of Ethernet frames as the enclave counts them."
		unmade  = "Connections to the outside that were not made: refused by the enclave's policy or for want of room, or by host or network."
		answers = "Requests that the enclave's proxy answered itself: the client was gone, at fault, or the app failed."
	)
	uplink, downlink := exposition.With("direction", "uplink"), exposition.With("direction", "downlink")
	cpu := counter(CPU, "cpu_seconds_total", "User and system time of the sidecar.")
	cpu.Unit = 1e-9
	return []Metric{
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
		gauge(LinkConnected, "link_connected", "Whether the link is up."),
		counter(LinkConnects, "link_connects_total", "How often the link came up."),
		counter(LinkUplinkFrames, "link_frames_total", frames, uplink),
		counter(LinkUplinkBytes, "link_bytes_total", bytes, uplink),
		counter(LinkDownlinkFrames, "link_frames_total", frames, downlink),
		counter(LinkDownlinkBytes, "link_bytes_total", bytes, downlink),
		counter(LinkWrites, "link_writes_total", "Writes of the enclave to the link."),
		counter(LinkDrops, "link_drops_total", "Frames that the enclave dropped."),
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
}

// RequestTimeName and RequestTimeHelp are those of the histogram RequestTime.
const (
	RequestTimeName = prefix + "request_seconds"
	RequestTimeHelp = "How long requests for the app took in the enclave, to the last byte."
)

// AppendHistogram appends the values of a histogram with exposition.DurationBounds
// whose first number is given.
func AppendHistogram(dst []Value, first uint16, s exposition.Snapshot) []Value {
	for i, n := range s.Counts {
		dst = append(dst, Value{first + uint16(i), n})
	}
	return append(dst, Value{first + uint16(len(s.Counts)), s.Sum})
}

// HistogramOf is the reverse: it finds the values of the histogram; ok is false if
// there is none.
func HistogramOf(values map[uint16]uint64, first uint16) (s exposition.Snapshot, ok bool) {
	s = exposition.NewDurations().Snapshot()
	for i := range s.Counts {
		n, told := values[first+uint16(i)]
		s.Counts[i], ok = n, ok || told
	}
	s.Sum = values[first+uint16(len(s.Counts))]
	return s, ok
}

// Known returns the numbers that mean something.
func Known() map[uint16]bool {
	known := map[uint16]bool{}
	for _, m := range Metrics() {
		known[m.Number] = true
	}
	for _, v := range AppendHistogram(nil, RequestTime, exposition.NewDurations().Snapshot()) {
		known[v.Metric] = true
	}
	return known
}
