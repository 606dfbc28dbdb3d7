package status

import (
	"runtime/debug"
	"slices"
	"time"

	"github.com/corridor-enclave/corridor/tapstack/exposition"
	wire "github.com/corridor-enclave/corridor/tapstack/telemetry"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// An Overview is what the page shows, as JSON. Times are milliseconds since 1970.
// Sums only grow; the page makes rates of them.
type Overview struct {
	Now      int64     `json:"now"`
	Began    int64     `json:"began"`
	NotReady string    `json:"not_ready,omitempty"` // why clients should be sent elsewhere
	Process  Process   `json:"process"`
	Enclaves []Enclave `json:"enclaves"`
	Ports    []Port    `json:"ports"`
}

// A Process is what the host itself takes.
type Process struct {
	Revision    string  `json:"revision"`
	CPU         float64 `json:"cpu"` // seconds
	Resident    uint64  `json:"resident"`
	Heap        uint64  `json:"heap"`
	Goroutines  uint64  `json:"goroutines"`
	Descriptors uint64  `json:"descriptors"`
}

// A Timing is a histogram: the upper bounds of its buckets in seconds, how many
// values are in each and in one more above all, and their sum in seconds.
type Timing struct {
	Bounds []float64 `json:"bounds"`
	Counts []uint64  `json:"counts"`
	Sum    float64   `json:"sum"`
}

// A Port is one that is published.
type Port struct {
	Port        string           `json:"port"`
	Connections int64            `json:"connections"`
	Accepted    int64            `json:"accepted"`
	Failed      int64            `json:"failed"`
	Refused     map[string]int64 `json:"refused"`
	Downlink    int64            `json:"downlink"`
	Uplink      int64            `json:"uplink"`
	Dials       Timing           `json:"dials"`
}

// An Enclave is one that the host has to do with. What is below Told is its own
// word.
type Enclave struct {
	CID       uint32            `json:"cid"`
	Attached  bool              `json:"attached"` // it has a link
	Health    string            `json:"health,omitempty"`
	Reason    string            `json:"reason,omitempty"`
	Drained   bool              `json:"drained,omitempty"`
	Downlink  uint64            `json:"downlink"` // of the link, in bytes
	Uplink    uint64            `json:"uplink"`
	Links     uint64            `json:"links"` // that it ever opened
	Drops     uint64            `json:"drops"`
	Flows     map[string]int64  `json:"flows,omitempty"`
	Refusals  map[string]uint64 `json:"refusals,omitempty"`
	Heard     bool              `json:"heard"`
	HeardLast int64             `json:"heard_last,omitempty"`
	Told      *Told             `json:"told,omitempty"`
}

// Told is what an enclave says of itself.
type Told struct {
	Requests   uint64            `json:"requests"`
	UnderWay   uint64            `json:"under_way"`
	Failures   map[string]uint64 `json:"failures"`
	Resident   uint64            `json:"resident"`
	Goroutines uint64            `json:"goroutines"`
	CPU        float64           `json:"cpu"`
	AppStarts  uint64            `json:"app_starts"`
	Events     map[string]uint64 `json:"events"`
	Lost       uint64            `json:"lost"`
	Times      *Timing           `json:"times,omitempty"`
}

func (h *handler) overview() Overview {
	p := exposition.ReadProcess()
	o := Overview{
		Now: h.config.Now().UnixMilli(), Began: h.began.UnixMilli(),
		Process: Process{
			Revision: revision(), CPU: p.CPU.Seconds(), Resident: p.ResidentBytes, Heap: p.HeapBytes,
			Goroutines: p.Goroutines, Descriptors: p.OpenDescriptors,
		},
		Enclaves: h.enclaves(),
		Ports:    []Port{},
	}
	for _, s := range h.config.Ports() {
		o.Ports = append(o.Ports, Port{
			Port: s.Spec.String(), Connections: s.Connections, Accepted: s.Accepted, Failed: s.Failed, Refused: s.Refused,
			Downlink: s.DownlinkBytes, Uplink: s.UplinkBytes, Dials: timing(s.Dials),
		})
	}
	o.NotReady = notReady(o)
	return o
}

// enclaves puts together what the parts know of each, ordered by CID.
func (h *handler) enclaves() []Enclave {
	byCID := map[vsockconn.CID]*Enclave{}
	of := func(cid vsockconn.CID) *Enclave {
		if byCID[cid] == nil {
			byCID[cid] = &Enclave{CID: uint32(cid)}
		}
		return byCID[cid]
	}
	for _, s := range h.config.Ports() {
		for _, cid := range s.Spec.Enclaves {
			of(cid)
		}
	}
	for _, g := range h.config.Enclaves() {
		e := of(g.CID)
		d := g.Stats.Drops
		e.Attached, e.Links = g.Attached, g.Stats.Streams
		e.Downlink, e.Uplink = g.Stats.DownlinkBytes, g.Stats.UplinkBytes
		e.Drops = d.NoStream + d.QueueFull + d.Protocol + d.Malformed + d.NotForGateway + d.Offload + d.TooLong + d.InFlight
		e.Flows = map[string]int64{"tcp": g.Flows.TCP.Open, "udp": g.Flows.UDP.Open, "icmp": g.Flows.ICMP.Open}
		e.Refusals = g.Refusals
	}
	for _, b := range h.config.Balance() {
		e := of(b.CID)
		e.Health, e.Reason, e.Drained = b.Health, b.Reason, b.Drained
	}
	for _, r := range h.config.Reports() {
		e := of(r.CID)
		e.Heard, e.HeardLast = r.Connected, r.Heard.UnixMilli()
		e.Told = told(r.Values, r.Events)
	}
	all := make([]Enclave, 0, len(byCID))
	for _, e := range byCID {
		all = append(all, *e)
	}
	slices.SortFunc(all, func(a, b Enclave) int { return int(int64(a.CID) - int64(b.CID)) })
	return all
}

func told(values map[uint16]uint64, events map[wire.Code]uint64) *Told {
	t := &Told{
		Requests: values[wire.ProxyRequests], UnderWay: values[wire.ProxyUnderWay],
		Failures: map[string]uint64{
			"client-gone": values[wire.ProxyClientGone], "client-fault": values[wire.ProxyClientFaults], "app-failure": values[wire.ProxyAppFailures],
		},
		Resident: values[wire.ResidentBytes], Goroutines: values[wire.Goroutines],
		CPU:       time.Duration(min(values[wire.CPU], 1<<62)).Seconds(),
		AppStarts: values[wire.AppStarts], Lost: values[wire.LostLogs] + values[wire.LostEvents],
		Events: map[string]uint64{},
	}
	for code, n := range events {
		t.Events[code.String()] = n
	}
	if s, ok := wire.RequestTimes().Of(values); ok {
		times := timing(s)
		t.Times = &times
	}
	return t
}

func timing(s exposition.Snapshot) Timing {
	t := Timing{Counts: s.Counts, Sum: float64(s.Sum) * s.Unit}
	for _, b := range s.Bounds {
		t.Bounds = append(t.Bounds, float64(b)*s.Unit)
	}
	return t
}

// revision is what this program was built from, shortened.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value[:min(len(s.Value), 12)]
			}
		}
	}
	return "unknown"
}
