package telemetry

import (
	"strconv"

	"github.com/corridor-enclave/corridor/tapstack/exposition"
)

// linkMetrics is what an enclave may tell of its end of the link.
func linkMetrics() []Metric {
	const (
		frames     = "Ethernet frames as the enclave counts them."
		bytes      = "Bytes of Ethernet frames as the enclave counts them."
		dropped    = "Frames that the enclave dropped, by cause."
		lostLinks  = "Links of the enclave that were up and ended, by cause."
		laneFrames = "Ethernet frames of one lane as the enclave counts them."
	)
	uplink, downlink := exposition.With("direction", "uplink"), exposition.With("direction", "downlink")
	all := []Metric{
		gauge(LinkConnected, "link_connected", "Whether the link is up."),
		counter(LinkConnects, "link_connects_total", "How often the link came up."),
		counter(LinkUplinkFrames, "link_frames_total", frames, uplink),
		counter(LinkUplinkBytes, "link_bytes_total", bytes, uplink),
		counter(LinkDownlinkFrames, "link_frames_total", frames, downlink),
		counter(LinkDownlinkBytes, "link_bytes_total", bytes, downlink),
		counter(LinkWrites, "link_writes_total", "Writes of the enclave to the link."),
		counter(LinkDrops, "link_drops_total", "Frames that the enclave dropped."),
		gauge(LinkLanes, "link_lanes", "Streams of the enclave's link."),
		gauge(LinkWaiting, "link_waiting_bytes", "What the enclave has read from its device and not yet written to the link."),
		counter(LinkDropRefused, "link_dropped_frames_total", dropped, exposition.With("cause", "refused")),
		counter(LinkDropOffload, "link_dropped_frames_total", dropped, exposition.With("cause", "offload")),
		counter(LinkDropTooLong, "link_dropped_frames_total", dropped, exposition.With("cause", "too-long")),
		counter(LinkDropTooShort, "link_dropped_frames_total", dropped, exposition.With("cause", "too-short")),
		counter(LinkDropNeighbour, "link_dropped_frames_total", dropped, exposition.With("cause", "neighbour")),
		counter(LinkDropFraming, "link_dropped_frames_total", dropped, exposition.With("cause", "framing")),
		counter(LinkFailures, "link_failures_total", "Attempts of the enclave to open its link that failed."),
		counter(LinkLossClosed, "link_lost_total", lostLinks, exposition.With("cause", "closed")),
		counter(LinkLossCut, "link_lost_total", lostLinks, exposition.With("cause", "cut")),
		counter(LinkLossFraming, "link_lost_total", lostLinks, exposition.With("cause", "framing")),
		counter(LinkLossSilent, "link_lost_total", lostLinks, exposition.With("cause", "silent")),
		counter(LinkLossOther, "link_lost_total", lostLinks, exposition.With("cause", "other")),
	}
	for i := range MaxLanes {
		lane := exposition.With("lane", strconv.Itoa(i))
		all = append(all,
			counter(LaneUplink+uint16(i), "link_lane_frames_total", laneFrames, lane, uplink),
			counter(LaneDownlink+uint16(i), "link_lane_frames_total", laneFrames, lane, downlink))
	}
	return all
}
