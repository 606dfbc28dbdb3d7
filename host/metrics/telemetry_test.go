package metrics_test

import (
	"strings"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/host/metrics"
	"github.com/corridor-enclave/corridor/host/telemetry"
	"github.com/corridor-enclave/corridor/tapstack/exposition"
	wire "github.com/corridor-enclave/corridor/tapstack/telemetry"
)

func TestReports(t *testing.T) {
	t.Parallel()
	h := exposition.NewDurations()
	h.ObserveDuration(time.Millisecond)
	values := map[uint16]uint64{wire.ProxyRequests: 7, wire.CPU: 2_500_000_000, wire.LinkUplinkBytes: 9, wire.LinkDropRefused: 4, wire.LinkLossCut: 1, wire.LaneUplink + 1: 8, wire.ProxyAnswers + 3: 5}
	for _, v := range wire.AppendHistogram(nil, wire.RequestTime, h.Snapshot()) {
		values[v.Metric] = v.Value
	}
	sizes := exposition.NewSizes()
	sizes.Observe(1514)
	for _, v := range wire.AppendHistogram(nil, wire.LinkReadBytes, sizes.Snapshot()) {
		values[v.Metric] = v.Value
	}
	page := scrape(t, metrics.Reports(func() []telemetry.Report {
		return []telemetry.Report{
			{CID: 16, Connected: true, Lines: 3, Values: values, Events: map[wire.Code]uint64{wire.AppEnded: 2, 0: 1}},
			{CID: 17, Values: map[uint16]uint64{wire.ProxyRequests: 7}},
		}
	}))
	wants(t, page,
		`corridor_enclave_heard{cid="16"} 1`,
		`corridor_enclave_heard{cid="17"} 0`,
		`corridor_enclave_lines_total{cid="16"} 3`,
		`corridor_enclave_events_total{cid="16",event="app-ended"} 2`,
		`corridor_enclave_events_total{cid="16",event="unknown"} 1`,
		`corridor_enclave_requests_total{cid="16"} 7`,
		`corridor_enclave_proxy_answers_total{cause="connection_limit_reached",cid="16"} 5`,
		`corridor_enclave_cpu_seconds_total{cid="16"} 2.5`,
		`corridor_enclave_link_bytes_total{cid="16",direction="uplink"} 9`,
		`corridor_enclave_request_seconds_bucket{cid="16",le="0.001"} 1`,
		`corridor_enclave_link_dropped_frames_total{cause="refused",cid="16"} 4`,
		`corridor_enclave_link_lost_total{cause="cut",cid="16"} 1`,
		`corridor_enclave_link_lane_frames_total{cid="16",direction="uplink",lane="1"} 8`,
		`corridor_enclave_link_read_bytes_bucket{cid="16",le="1514"} 1`,
	)
	for _, absent := range []string{`corridor_enclave_requests_total{cid="17"}`, "corridor_enclave_goroutines", "corridor_enclave_link_gathered"} {
		if strings.Contains(page, absent) {
			t.Errorf("the page has %s, which nobody says now", absent)
		}
	}
}
