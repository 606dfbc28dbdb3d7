package netstack

import (
	"reflect"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"

	"github.com/corridor-enclave/corridor/tapstack/exposition"
)

// Stats is what has passed a Stack since it was made. Bytes are those of
// Ethernet frames, without the length in front of each.
type Stats struct {
	Streams                       uint64              // streams that were ever attached
	UplinkFrames, UplinkBytes     uint64              // from the enclave
	DownlinkFrames, DownlinkBytes uint64              // to the enclave
	Writes                        uint64              // to the streams, for the downlink
	SparedAcks                    uint64              // acknowledgements that a later segment made needless before they left
	Queued                        int                 // bytes that wait for the stream, as the queues count them
	Open                          int                 // lanes of the stream that is attached, or was last
	Lanes                         []LaneStats         // all that there ever were
	Gathered                      exposition.Snapshot // bytes that were ready for the stream at a time
	Reads                         exposition.Snapshot // bytes of a read of the stream
	Drops                         Drops
}

// LaneStats is what has passed one lane of all streams.
type LaneStats struct {
	UplinkFrames, UplinkBytes     uint64
	DownlinkFrames, DownlinkBytes uint64
	Queued                        int // bytes
}

// Drops counts packets that went no further, by cause.
type Drops struct {
	NoStream      uint64 // to the enclave, while no stream was attached
	QueueFull     uint64 // to the enclave, which did not take frames fast enough
	Protocol      uint64 // from the enclave: neither ARP nor IP of a kind that is carried
	Malformed     uint64 // from the enclave: too short for its own headers
	NotForGateway uint64 // from the enclave: ARP or ICMP to an address that is not the gateway
	Offload       uint64 // from the enclave: a wrong virtio-net header
	TooLong       uint64 // to the enclave, which does not take frames of that length
	InFlight      uint64 // SYNs from the enclave, while too many flows were undecided
}

// counters are the live form of Stats.
type counters struct {
	streams                                                  atomic.Uint64
	dropNoStream, dropQueueFull, dropProtocol, dropMalformed atomic.Uint64
	dropNotForGateway, dropOffload, dropTooLong, writes      atomic.Uint64
}

// laneCounters are the live form of LaneStats.
type laneCounters struct {
	uplinkFrames, uplinkBytes, downlinkFrames, downlinkBytes atomic.Uint64

	_ [64]byte // lanes run on different CPUs: no two on one cache line
}

// Stats returns the counters of now.
func (s *Stack) Stats() Stats {
	c := &s.counts
	stats := Stats{
		Streams:  c.streams.Load(),
		Writes:   c.writes.Load(),
		Open:     len(*s.card.lanes.Load()),
		Gathered: s.gathered.Snapshot(),
		Reads:    s.reads.Snapshot(),
		Drops: Drops{
			NoStream:      c.dropNoStream.Load(),
			QueueFull:     c.dropQueueFull.Load(),
			Protocol:      c.dropProtocol.Load(),
			Malformed:     c.dropMalformed.Load(),
			NotForGateway: c.dropNotForGateway.Load(),
			Offload:       c.dropOffload.Load(),
			TooLong:       c.dropTooLong.Load(),
			InFlight:      s.stack.Stats().TCP.ForwardMaxInFlightDrop.Value(),
		},
	}
	s.addLanes(&stats)
	return stats
}

// addLanes adds what the lanes count, and its sum.
func (s *Stack) addLanes(sum *Stats) {
	for i, q := range *s.card.known.Load() {
		c := &s.lanes[i]
		queued, spared := q.sizes()
		lane := LaneStats{
			UplinkFrames: c.uplinkFrames.Load(), UplinkBytes: c.uplinkBytes.Load(),
			DownlinkFrames: c.downlinkFrames.Load(), DownlinkBytes: c.downlinkBytes.Load(),
			Queued: queued,
		}
		sum.Lanes = append(sum.Lanes, lane)
		sum.UplinkFrames += lane.UplinkFrames
		sum.UplinkBytes += lane.UplinkBytes
		sum.DownlinkFrames += lane.DownlinkFrames
		sum.DownlinkBytes += lane.DownlinkBytes
		sum.Queued += lane.Queued
		sum.SparedAcks += spared
	}
}

// Counters returns every counter of the stack below as a tree of maps with
// uint64 leaves, named as gVisor names them: TCP.Retransmits, for example. It is
// what gvproxy shows under /stats.
func (s *Stack) Counters() map[string]any {
	tree := map[string]any{}
	collectCounters(tree, reflect.ValueOf(s.stack.Stats()))
	return tree
}

func collectCounters(tree map[string]any, v reflect.Value) {
	for field, value := range v.Fields() {
		if value.Kind() == reflect.Struct {
			branch := map[string]any{}
			collectCounters(branch, value)
			tree[field.Name] = branch
			continue
		}
		if counter, ok := value.Interface().(*tcpip.StatCounter); ok {
			tree[field.Name] = counter.Value()
		}
	}
}
