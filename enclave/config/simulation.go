package config

import (
	"time"

	"github.com/corridor-enclave/corridor/tapstack/settings"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// defaultSeed makes every enclave-sim measure the same where nobody says
// otherwise, so that one policy file fits a test's whole life.
const defaultSeed = "corridor"

// A simulation holds the settings that exist in enclave-sim alone.
type simulation struct {
	isolate  *bool
	cid      *vsockconn.CID
	nsm      *string
	nsmSeed  *string
	nsmOut   *string
	nsmDebug *bool
	latency  *time.Duration
	tls      *bool
	metrics  *string
	profile  *string
}

func (m *simulation) declare(s *settings.Set) {
	m.isolate = settings.Bool(s, "isolate", "enter a new network namespace first, which like an enclave has no network")
	m.cid = settings.Var(s, "cid", "16", "this enclave's own `CID`", parseCID)
	m.nsm = settings.Var(s, "nsm", "sim", "security `module`: sim, the only one here", parseNSM)
	m.nsmSeed = settings.Var(s, "nsm-seed", defaultSeed, "`text` that determines the simulated module's root and measurements", parseText)
	m.nsmOut = settings.Var(s, "nsm-out", "", "`folder` to write root.pem and policy.toml of the simulated module to", parseText)
	m.nsmDebug = settings.Bool(s, "nsm-debug", "measure zeros, like an enclave in debug mode")
	m.latency = settings.Var(s, "nsm-latency", "0", "how `long` the simulated module takes for each answer; a real one takes about 1.1ms", parseOptionalTimeout)
	m.tls = settings.Var(s, "tls", "on", "`on or off`: off serves plain HTTP, without any proof", settings.OnOff)
	m.metrics = settings.Var(s, "metrics", "", "unix `socket` to tell Prometheus on what this process takes", parseText)
	m.profile = settings.Var(s, "cpu-profile", "", "`file` to write a CPU profile to, from the start to the end", parseText)
}

func (m *simulation) assemble() Simulation {
	return Simulation{
		Isolate: *m.isolate, CID: *m.cid,
		NSMSeed: *m.nsmSeed, NSMOut: *m.nsmOut, NSMDebug: *m.nsmDebug, NSMLatency: *m.latency,
		PlainHTTP: !*m.tls, Metrics: *m.metrics, CPUProfile: *m.profile,
	}
}

func (m *simulation) check(s *settings.Set, c Config) {
	if c.Link.On && !s.IsSet("link") && !c.Simulation.Isolate {
		s.Reject("link", "would change this machine's own network: add --isolate, or --link off; or --link on if it already runs in a network namespace of its own")
	}
	if c.Link.On && c.Link.VSOCK == "kernel" && s.IsSet("cid") {
		s.Reject("cid", "with --vsock kernel the kernel decides")
	}
	if c.Simulation.CID == c.Link.Parent && c.Link.Parent != 0 {
		s.Reject("cid", "is the host's own (--parent-cid %s)", c.Link.Parent)
	}
}
