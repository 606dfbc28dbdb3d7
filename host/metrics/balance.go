package metrics

import (
	"github.com/corridor-enclave/corridor/host/balance"
	"github.com/corridor-enclave/corridor/host/running"
	"github.com/corridor-enclave/corridor/tapstack/exposition"
)

// Balance tells about enclaves as those who take clients.
func Balance(status func() []balance.Status) Source {
	return func(page *exposition.Page) {
		for _, s := range status() {
			cid := CID(uint32(s.CID))
			page.Gauge("corridor_enclave_up", "Whether checks find the enclave healthy, or nobody checks it.", flag(s.Health != "down"), cid)
			page.Gauge("corridor_enclave_drained", "Whether the enclave gets no new clients.", flag(s.Drained), cid)
			page.Gauge("corridor_enclave_connections", "Clients' connections that the enclave has.", float64(s.Connections), cid)
			page.Counter("corridor_enclave_chosen_total", "Clients that the enclave was chosen for.", float64(s.Taken), cid)
			page.Counter("corridor_enclave_missed_total", "Clients that the enclave was chosen for and did not take.", float64(s.Failures), cid)
		}
	}
}

// Changes tells how often the configuration was to be changed.
func Changes(counts func() running.Counts) Source {
	return func(page *exposition.Page) {
		c := counts()
		const name, help = "corridor_config_changes_total", "Changes of the configuration, by whether they were made."
		page.Counter(name, help, float64(c.Applied), exposition.With("result", "applied"))
		page.Counter(name, help, float64(c.Refused), exposition.With("result", "refused"))
	}
}

func flag(v bool) float64 {
	if v {
		return 1
	}
	return 0
}
