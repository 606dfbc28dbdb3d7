package metrics

import (
	"github.com/corridor-enclave/corridor/host/telemetry"
	"github.com/corridor-enclave/corridor/tapstack/exposition"
	wire "github.com/corridor-enclave/corridor/tapstack/telemetry"
)

// Reports tells what enclaves say of themselves. Their numbers are shown while
// they are heard; whether they are is shown for all that were.
func Reports(reports func() []telemetry.Report) Source {
	return func(page *exposition.Page) {
		for _, r := range reports() {
			report(page, r)
		}
	}
}

func report(page *exposition.Page, r telemetry.Report) {
	cid := CID(uint32(r.CID))
	heard := 0.0
	if r.Connected {
		heard = 1
	}
	page.Gauge("corridor_enclave_heard", "Whether the enclave reports about itself now.", heard, cid)
	page.Counter("corridor_enclave_lines_total", "Log lines that the enclave told.", float64(r.Lines), cid)
	for code, n := range r.Events {
		page.Counter("corridor_enclave_events_total", "Events that the enclave told, by kind.", float64(n), cid, exposition.With("event", code.String()))
	}
	if !r.Connected {
		return
	}
	wire.Write(page, r.Values, cid)
}
