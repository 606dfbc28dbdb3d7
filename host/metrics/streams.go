package metrics

import (
	"strconv"

	"github.com/corridor-enclave/corridor/host/streams"
	"github.com/corridor-enclave/corridor/tapstack/exposition"
)

// Streams tells about streams into enclaves, before they have a client.
func Streams(counts func() streams.Counts) Source {
	return func(page *exposition.Page) {
		c := counts()
		for _, to := range c.Endpoints() {
			page.Gauge("corridor_streams_ready", "Streams that wait for a client.", float64(c.Ready[to]),
				CID(uint32(to.CID)), exposition.With("port", strconv.FormatUint(uint64(to.Port), 10)))
		}
		page.Counter("corridor_streams_taken_total", "Clients that got a stream that was ready.", float64(c.Taken))
		page.Counter("corridor_streams_connected_total", "Streams that were connected, ahead of time or not.", float64(c.Connected))
		page.Counter("corridor_streams_failed_total", "Attempts to connect a stream that failed.", float64(c.Failed))
		page.Counter("corridor_streams_died_total", "Streams that ended, or grew too old, before a client needed them.", float64(c.Died))
	}
}
