package sidecar

import "github.com/corridor-enclave/corridor/enclave/config"

// A published configuration is what strangers may know: what the enclave is to
// them. Where the app listens and how it is started is not among it, because a
// command line may hold secrets.
type published struct {
	FQDN       string        `json:"fqdn,omitempty"`
	SourceURL  string        `json:"source_url,omitempty"`
	Front      []string      `json:"front"`
	Streams    []uint32      `json:"streams,omitempty"`
	TLS        bool          `json:"tls"`
	App        bool          `json:"app"`
	WaitForApp bool          `json:"wait_for_app"`
	Link       publishedLink `json:"link"`
	Egress     []string      `json:"egress,omitempty"`  // what the app may be let out to, beside the link
	Telemetry  string        `json:"telemetry"`         // what the host learns without being asked
	Startup    string        `json:"startup,omitempty"` // SHA-256 of what the app was given at start
	Simulated  bool          `json:"simulated"`
}

type publishedLink struct {
	On  bool `json:"on"`
	MTU int  `json:"mtu,omitempty"`
}

func publish(c config.Config) published {
	p := published{
		FQDN:       c.FQDN,
		TLS:        !c.Simulation.PlainHTTP,
		App:        len(c.Apps) > 0,
		WaitForApp: c.WaitForApp,
		Link:       publishedLink{On: c.Link.On},
		Telemetry:  c.Telemetry.Mode.String(),
		Simulated:  c.Simulation != config.Simulation{},
	}
	if c.Source != nil {
		p.SourceURL = c.Source.String()
	}
	for _, e := range c.Front {
		p.Front = append(p.Front, e.String())
	}
	for _, f := range c.Streams {
		p.Streams = append(p.Streams, f.Port)
	}
	if c.Egress.On() {
		for _, r := range c.Egress.Policy.Allow {
			p.Egress = append(p.Egress, r.String())
		}
	}
	if c.Link.On {
		p.Link.MTU = c.Link.MTU
	}
	return p
}
