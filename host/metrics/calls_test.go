package metrics_test

import (
	"testing"

	"github.com/corridor-enclave/corridor/host/credentials"
	"github.com/corridor-enclave/corridor/host/egress"
	"github.com/corridor-enclave/corridor/host/metrics"
	"github.com/corridor-enclave/corridor/tapstack/stream"
)

func TestCalls(t *testing.T) {
	t.Parallel()
	page := scrape(t, metrics.Calls(func() egress.Counts {
		return egress.Counts{Open: 2, Replies: map[stream.Status]uint64{stream.Connected: 7, stream.NoSuchName: 1}, UplinkBytes: 3, DownlinkBytes: 4}
	}))
	wants(t, page,
		"corridor_calls 2\n", `corridor_calls_total{reply="connected"} 7`, `corridor_calls_total{reply="no-such-name"} 1`,
		`corridor_calls_bytes_total{direction="downlink"} 4`, `corridor_calls_bytes_total{direction="uplink"} 3`)
}

func TestCredentials(t *testing.T) {
	t.Parallel()
	page := scrape(t, metrics.Credentials(func() credentials.Counts { return credentials.Counts{Passed: 3, Refused: 2, Crowded: 1, Failed: 4} }))
	wants(t, page,
		`corridor_credentials_total{result="passed"} 3`, `corridor_credentials_total{result="refused"} 2`,
		`corridor_credentials_total{result="crowded"} 1`, `corridor_credentials_total{result="failed"} 4`)
}
