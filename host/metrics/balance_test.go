package metrics_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/corridor-enclave/corridor/host/balance"
	"github.com/corridor-enclave/corridor/host/metrics"
	"github.com/corridor-enclave/corridor/host/running"
	"github.com/corridor-enclave/corridor/tapstack/exposition"
)

func TestBalanceAndChanges(t *testing.T) {
	t.Parallel()
	page := exposition.NewPage()
	metrics.Balance(func() []balance.Status {
		return []balance.Status{{CID: 16, Health: "down", Connections: 3, Taken: 5, Failures: 2}, {CID: 17, Health: "unchecked", Drained: true}}
	})(page)
	metrics.Changes(func() running.Counts { return running.Counts{Applied: 7, Refused: 1} })(page)
	var text bytes.Buffer
	if _, err := page.WriteTo(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`corridor_enclave_up{cid="16"} 0`, `corridor_enclave_up{cid="17"} 1`, `corridor_enclave_drained{cid="17"} 1`,
		`corridor_enclave_connections{cid="16"} 3`, `corridor_enclave_chosen_total{cid="16"} 5`, `corridor_enclave_missed_total{cid="16"} 2`,
		`corridor_config_changes_total{result="applied"} 7`, `corridor_config_changes_total{result="refused"} 1`,
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the page does not say %s:\n%s", want, &text)
		}
	}
}
