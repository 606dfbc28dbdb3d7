package metrics_test

import (
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/corridor-enclave/corridor/host/gateway"
	"github.com/corridor-enclave/corridor/host/metrics"
	"github.com/corridor-enclave/corridor/host/publish"
	"github.com/corridor-enclave/corridor/host/streams"
	"github.com/corridor-enclave/corridor/tapstack/exposition"
	"github.com/corridor-enclave/corridor/tapstack/netstack"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// scrape returns a page that Prometheus' own parser has accepted.
func scrape(t *testing.T, sources ...metrics.Source) string {
	t.Helper()
	w := httptest.NewRecorder()
	metrics.Handler(slog.New(slog.DiscardHandler), sources...).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if got := w.Header().Get("Content-Type"); w.Code != 200 || got != exposition.ContentType {
		t.Errorf("status %d, %s", w.Code, got)
	}
	page := w.Body.String()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(page))
	if err != nil {
		t.Fatalf("%v in\n%s", err, page)
	}
	if got := families["corridor_metrics_dropped_samples"].GetMetric()[0].GetGauge().GetValue(); got != 0 {
		t.Errorf("%v samples contradict others", got)
	}
	return page
}

func wants(t *testing.T, page string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains(page, "\n"+line) {
			t.Errorf("the page lacks %q:\n%s", line, page)
		}
	}
}

func TestProcess(t *testing.T) {
	t.Parallel()
	page := scrape(t)
	wants(t, page, "corridor_build_info{go=", "process_cpu_seconds_total ", "corridor_process_allocations_total ")
	for _, name := range []string{"go_goroutines", "corridor_process_heap_bytes", "corridor_process_runtime_bytes"} {
		if strings.Contains(page, "\n"+name+" 0\n") {
			t.Errorf("%s is 0", name)
		}
	}
}

func TestPublished(t *testing.T) {
	t.Parallel()
	h := exposition.NewDurations()
	h.Observe(1)
	page := scrape(t, metrics.Published(func() []publish.Status {
		return []publish.Status{
			{
				Spec:        publish.Spec{Local: ":443", Road: publish.Stream, Enclaves: []vsockconn.CID{16}, Port: 1443},
				Connections: 1, Accepted: 9, Failed: 2, Refused: map[string]int64{"client": 3, "total": 0},
				DownlinkBytes: 100, UplinkBytes: 200, Dials: h.Snapshot(),
			},
			{Spec: publish.Spec{Local: ":80"}, Dials: h.Snapshot()},
		}
	}))
	wants(t, page,
		`corridor_published_connections{addr=":443",road="stream"} 1`,
		`corridor_published_accepted_total{addr=":443",road="stream"} 9`,
		`corridor_published_failed_total{addr=":443",road="stream"} 2`,
		`corridor_published_refused_total{addr=":443",limit="client",road="stream"} 3`,
		`corridor_published_bytes_total{addr=":443",direction="downlink",road="stream"} 100`,
		`corridor_published_bytes_total{addr=":443",direction="uplink",road="stream"} 200`,
		`corridor_published_dial_seconds_count{addr=":443",road="stream"} 1`,
		`corridor_published_connections{addr=":80",road="link"} 0`,
	)
}

func TestEnclaves(t *testing.T) {
	t.Parallel()
	h := exposition.NewDurations()
	h.Observe(1)
	page := scrape(t, metrics.Enclaves(func() []gateway.Enclave {
		return []gateway.Enclave{
			{
				CID: 16, Attached: true,
				Stats: netstack.Stats{DownlinkBytes: 5, UplinkFrames: 6, Drops: netstack.Drops{QueueFull: 7}, Queued: 12, Gathered: h.Snapshot(), Reads: h.Snapshot(),
					Open: 2, Lanes: []netstack.LaneStats{{UplinkFrames: 6}, {DownlinkBytes: 5, Queued: 12}}},
				Flows:    gateway.FlowStats{TCP: gateway.ProtocolStats{Open: 1, Refused: 8}, Dials: h.Snapshot()},
				Refusals: map[string]uint64{"metadata": 4},
				DNS:      gateway.DNSStats{Queries: 11, Cached: 10, Held: 13},
				Counters: map[string]any{"TCP": map[string]any{"Retransmits": uint64(3)}},
			},
			{CID: 17},
		}
	}))
	wants(t, page,
		`corridor_link_attached{cid="16"} 1`,
		`corridor_link_attached{cid="17"} 0`,
		`corridor_link_bytes_total{cid="16",direction="downlink"} 5`,
		`corridor_link_frames_total{cid="16",direction="uplink"} 6`,
		`corridor_link_drops_total{cause="queue-full",cid="16"} 7`,
		`corridor_link_lanes{cid="16"} 2`,
		`corridor_link_lane_frames_total{cid="16",direction="uplink",lane="0"} 6`,
		`corridor_link_lane_bytes_total{cid="16",direction="downlink",lane="1"} 5`,
		`corridor_link_lane_queued_bytes{cid="16",lane="1"} 12`,
		`corridor_flows{cid="16",protocol="tcp"} 1`,
		`corridor_flows_ended_total{cid="16",protocol="tcp",result="refused"} 8`,
		`corridor_stack_retransmits_total{cid="16"} 3`,
		`corridor_egress_refused_total{cause="metadata",cid="16"} 4`,
		`corridor_link_queued_bytes{cid="16"} 12`,
		`corridor_link_gathered_bytes_count{cid="16"} 1`,
		`corridor_link_read_bytes_count{cid="16"} 1`,
		`corridor_flows_dial_seconds_count{cid="16"} 1`,
		`corridor_egress_held_addresses{cid="16"} 13`,
		`corridor_dns_queries_total{cid="16"} 11`,
		`corridor_dns_cached_total{cid="16"} 10`,
	)
}

func TestStreams(t *testing.T) {
	t.Parallel()
	page := scrape(t, metrics.Streams(func() streams.Counts {
		return streams.Counts{Ready: map[vsockconn.Addr]int{{CID: 16, Port: 1443}: 8}, Taken: 1, Connected: 2, Failed: 3, Died: 4}
	}))
	wants(t, page, `corridor_streams_ready{cid="16",port="1443"} 8`, "corridor_streams_taken_total 1",
		"corridor_streams_connected_total 2", "corridor_streams_failed_total 3", "corridor_streams_died_total 4")
}
