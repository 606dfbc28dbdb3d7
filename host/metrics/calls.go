package metrics

import (
	"strings"

	"github.com/corridor-enclave/corridor/host/credentials"
	"github.com/corridor-enclave/corridor/host/egress"
	"github.com/corridor-enclave/corridor/tapstack/exposition"
)

// Calls tells about connections out of enclaves that came by streams.
func Calls(counts func() egress.Counts) Source {
	return func(page *exposition.Page) {
		c := counts()
		page.Gauge("corridor_calls", "Connections out of enclaves by streams that are open.", float64(c.Open))
		for status, n := range c.Replies {
			page.Counter("corridor_calls_total", "Calls of enclaves, by how they were answered.", float64(n),
				exposition.With("reply", strings.ReplaceAll(status.String(), " ", "-")))
		}
		for direction, n := range map[string]uint64{"uplink": c.UplinkBytes, "downlink": c.DownlinkBytes} {
			page.Counter("corridor_calls_bytes_total", "Bytes of calls that have ended: downlink is to the enclave.", float64(n), exposition.With("direction", direction))
		}
	}
}

// Credentials tells about questions for the credentials of this instance's role.
func Credentials(counts func() credentials.Counts) Source {
	return func(page *exposition.Page) {
		c := counts()
		for result, n := range map[string]uint64{"passed": c.Passed, "refused": c.Refused, "crowded": c.Crowded, "failed": c.Failed} {
			page.Counter("corridor_credentials_total", "Enclaves' questions for the credentials of the instance's role, by what became of them.",
				float64(n), exposition.With("result", result))
		}
	}
}
