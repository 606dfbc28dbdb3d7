package config

import (
	"errors"

	"github.com/corridor-enclave/corridor/enclave/telemetry"
)

// Telemetry is what the host is told without being asked.
type Telemetry struct {
	Mode telemetry.Mode
	Port uint32
}

func parseTelemetry(v string) (telemetry.Mode, error) {
	for _, m := range []telemetry.Mode{telemetry.Off, telemetry.Events, telemetry.Logs} {
		if v == m.String() {
			return m, nil
		}
	}
	return telemetry.Off, errors.New("want off, events or logs")
}

// assembleTelemetry leaves the machine's own VSOCK alone in a simulation unless
// asked.
func (d *declaration) assembleTelemetry() Telemetry {
	t := Telemetry{Mode: *d.telemetry, Port: *d.telemetryPort}
	if d.build == Simulated && *d.vsock == "kernel" && !d.set.IsSet("telemetry") {
		t.Mode = telemetry.Off
	}
	return t
}
