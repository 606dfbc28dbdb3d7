package config

// parseTelemetryPort reads the VSOCK port on which enclaves are heard; 0 is none.
func parseTelemetryPort(v string) (uint32, error) {
	if v == "off" {
		return 0, nil
	}
	return parsePort(v)
}
