// Package metrics tells Prometheus what the host counts: published ports, the
// enclaves' networks, what enclaves report about themselves, and the process. It
// asks the parts when it is asked, and keeps nothing. Which labels there are does
// not depend on clients: published addresses, roads, CIDs and fixed causes.
package metrics

import (
	"log/slog"
	"net/http"
	"strconv"

	"github.com/corridor-enclave/corridor/host/gateway"
	"github.com/corridor-enclave/corridor/host/publish"
	"github.com/corridor-enclave/corridor/tapstack/exposition"
)

// A Source adds what one part counts to a page.
type Source func(*exposition.Page)

// Handler answers GET with a page of all sources and of this process.
func Handler(log *slog.Logger, sources ...Source) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		page := exposition.NewPage()
		exposition.ReadProcess().Write(page)
		exposition.WriteBuild(page)
		for _, s := range sources {
			s(page)
		}
		w.Header().Set("Content-Type", exposition.ContentType)
		if _, err := page.WriteTo(w); err != nil {
			log.Debug("scraper did not take its answer", "err", err)
		}
	})
}

// Published tells about published ports.
func Published(status func() []publish.Status) Source {
	return func(page *exposition.Page) {
		for _, s := range status() {
			published(page, s)
		}
	}
}

func published(page *exposition.Page, s publish.Status) {
	labels := []exposition.Label{
		exposition.With("addr", s.Spec.Local), exposition.With("road", s.Spec.Road.String()),
	}
	direction := func(d string) []exposition.Label { return with(labels, "direction", d) }
	page.Gauge("corridor_published_connections", "Clients' connections that are open.", float64(s.Connections), labels...)
	page.Counter("corridor_published_accepted_total", "Clients that came.", float64(s.Accepted), labels...)
	page.Counter("corridor_published_failed_total", "Clients whom no enclave took, and failures to accept one.", float64(s.Failed), labels...)
	for cause, n := range s.Refused {
		page.Counter("corridor_published_refused_total", "Clients beyond a limit, by the limit.", float64(n), with(labels, "limit", cause)...)
	}
	const bytes, bytesHelp = "corridor_published_bytes_total", "Bytes carried for clients: downlink is to the enclave."
	page.Counter(bytes, bytesHelp, float64(s.DownlinkBytes), direction("downlink")...)
	page.Counter(bytes, bytesHelp, float64(s.UplinkBytes), direction("uplink")...)
	page.Histogram("corridor_published_dial_seconds", "How long clients waited for the enclave that took them.", s.Dials, labels...)
}

// Enclaves tells about the networks of enclaves.
func Enclaves(enclaves func() []gateway.Enclave) Source {
	return func(page *exposition.Page) {
		for _, e := range enclaves() {
			network(page, e)
			flows(page, e)
			stack(page, e)
			names(page, e)
		}
	}
}

// CID is the label that names an enclave.
func CID(cid uint32) exposition.Label {
	return exposition.With("cid", strconv.FormatUint(uint64(cid), 10))
}

// network tells about the link.
func network(page *exposition.Page, e gateway.Enclave) {
	cid := CID(uint32(e.CID))
	attached := 0.0
	if e.Attached {
		attached = 1
	}
	page.Gauge("corridor_link_attached", "Whether the enclave has a link now.", attached, cid)
	page.Counter("corridor_link_streams_total", "Links that the enclave opened.", float64(e.Stats.Streams), cid)
	page.Counter("corridor_link_writes_total", "Writes to the link.", float64(e.Stats.Writes), cid)
	page.Counter("corridor_link_spared_acks_total", "Acknowledgements to the enclave that a later segment made needless before they left.", float64(e.Stats.SparedAcks), cid)
	for direction, n := range map[string][2]uint64{
		"downlink": {e.Stats.DownlinkFrames, e.Stats.DownlinkBytes},
		"uplink":   {e.Stats.UplinkFrames, e.Stats.UplinkBytes},
	} {
		d := exposition.With("direction", direction)
		page.Counter("corridor_link_frames_total", "Ethernet frames: downlink is to the enclave.", float64(n[0]), cid, d)
		page.Counter("corridor_link_bytes_total", "Bytes of Ethernet frames: downlink is to the enclave.", float64(n[1]), cid, d)
	}
	page.Gauge("corridor_link_queued_bytes", "What waits to be written to the enclave.", float64(e.Stats.Queued), cid)
	lanes(page, e, cid)
	page.Histogram("corridor_link_gathered_bytes", "Bytes that were ready for the enclave at a time, and left together.", e.Stats.Gathered, cid)
	page.Histogram("corridor_link_read_bytes", "Bytes of a read of the link.", e.Stats.Reads, cid)
	drops := e.Stats.Drops
	for cause, n := range map[string]uint64{
		"no-stream": drops.NoStream, "queue-full": drops.QueueFull, "protocol": drops.Protocol, "malformed": drops.Malformed,
		"not-for-gateway": drops.NotForGateway, "offload": drops.Offload, "too-long": drops.TooLong, "in-flight": drops.InFlight,
	} {
		page.Counter("corridor_link_drops_total", "Packets that went no further, by cause.", float64(n), cid, exposition.With("cause", cause))
	}
}

// lanes tells how the link's load is spread: there are 8 at most.
func lanes(page *exposition.Page, e gateway.Enclave, cid exposition.Label) {
	page.Gauge("corridor_link_lanes", "Streams of the enclave's link, or of the last that it had.", float64(e.Stats.Open), cid)
	const frames, framesHelp = "corridor_link_lane_frames_total", "Ethernet frames of one lane: downlink is to the enclave."
	const bytes, bytesHelp = "corridor_link_lane_bytes_total", "Bytes of Ethernet frames of one lane: downlink is to the enclave."
	for i, l := range e.Stats.Lanes {
		lane := exposition.With("lane", strconv.Itoa(i))
		down, up := exposition.With("direction", "downlink"), exposition.With("direction", "uplink")
		page.Counter(frames, framesHelp, float64(l.DownlinkFrames), cid, lane, down)
		page.Counter(frames, framesHelp, float64(l.UplinkFrames), cid, lane, up)
		page.Counter(bytes, bytesHelp, float64(l.DownlinkBytes), cid, lane, down)
		page.Counter(bytes, bytesHelp, float64(l.UplinkBytes), cid, lane, up)
		page.Gauge("corridor_link_lane_queued_bytes", "What waits to be written to one lane.", float64(l.Queued), cid, lane)
	}
}

// flows tells about what the enclave reaches through the gateway.
func flows(page *exposition.Page, e gateway.Enclave) {
	cid := CID(uint32(e.CID))
	for cause, n := range e.Refusals {
		page.Counter("corridor_egress_refused_total", "What the enclave did not get, by cause.", float64(n), cid, exposition.With("cause", cause))
	}
	page.Histogram("corridor_flows_dial_seconds", "How long destinations took to accept a connection of the enclave.", e.Flows.Dials, cid)
	for protocol, s := range map[string]gateway.ProtocolStats{"tcp": e.Flows.TCP, "udp": e.Flows.UDP, "icmp": e.Flows.ICMP} {
		p := exposition.With("protocol", protocol)
		page.Gauge("corridor_flows", "Flows of the enclave that are open.", float64(s.Open), cid, p)
		page.Counter("corridor_flows_total", "Flows that the enclave opened.", float64(s.Total), cid, p)
		for result, n := range map[string]uint64{"refused": s.Refused, "failed": s.Failed, "evicted": s.Evicted} {
			page.Counter("corridor_flows_ended_total", "Flows that did not come to be, or not to their end: refused by policy or limits, failed at the destination, evicted for a newer one.",
				float64(n), cid, p, exposition.With("result", result))
		}
	}
}

// names tells about what the enclave asked the resolver.
func names(page *exposition.Page, e gateway.Enclave) {
	cid := CID(uint32(e.CID))
	page.Counter("corridor_dns_queries_total", "Queries of the enclave.", float64(e.DNS.Queries), cid)
	page.Counter("corridor_dns_cached_total", "Queries that the cache answered.", float64(e.DNS.Cached), cid)
	page.Counter("corridor_dns_failed_total", "Queries that were answered with SERVFAIL.", float64(e.DNS.Failed), cid)
	page.Gauge("corridor_dns_kept", "Answers in the cache.", float64(e.DNS.Kept), cid)
	page.Gauge("corridor_egress_held_addresses", "Addresses that stand for a name of an egress rule.", float64(e.DNS.Held), cid)
	page.Counter("corridor_egress_evicted_addresses_total", "Of those, that made room for others before their time.", float64(e.DNS.Evicted), cid)
	page.Histogram("corridor_dns_forwarded_seconds", "How long the host's resolvers took for a query.", e.DNS.Forwarded, cid)
}

// stack tells the counters of the network stack that say whether the link is well.
func stack(page *exposition.Page, e gateway.Enclave) {
	cid := CID(uint32(e.CID))
	for _, c := range []struct{ field, name, help string }{
		{"Retransmits", "corridor_stack_retransmits_total", "TCP segments sent again."},
		{"FastRetransmit", "corridor_stack_fast_retransmits_total", "TCP segments sent again before their timer."},
		{"Timeouts", "corridor_stack_timeouts_total", "Retransmission timers that ran out."},
		{"ResetsSent", "corridor_stack_resets_sent_total", "TCP resets sent to the enclave."},
		{"ResetsReceived", "corridor_stack_resets_received_total", "TCP resets of the enclave."},
		{"ChecksumErrors", "corridor_stack_checksum_errors_total", "TCP segments of the enclave with a wrong checksum."},
	} {
		if tcp, ok := e.Counters["TCP"].(map[string]any); ok {
			if n, ok := tcp[c.field].(uint64); ok {
				page.Counter(c.name, c.help, float64(n), cid)
			}
		}
	}
}

// with returns the labels and one more, and leaves them alone.
func with(labels []exposition.Label, name, value string) []exposition.Label {
	return append(labels[:len(labels):len(labels)], exposition.With(name, value))
}
