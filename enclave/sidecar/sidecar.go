// Package sidecar puts the enclave's parts together: in which order they begin,
// what each needs of the others, and in which order they end. The parts do their
// work elsewhere: tap and tapstack the network, front the clients, appapi and
// supervise the app.
//
//	begin ▼                                                              ▲ end
//	      entropy       the kernel's random numbers come from the module │
//	      telemetry     tells the host, if it listens                    │ last words told
//	      loopback      up                                               │
//	      network       tap0 with its address and route                  │ closed with the link
//	      resolv.conf   names the link's resolver                        │
//	      link          carries frames; retries until the host is there  │ link closed
//	      certificate   self-signed, key born here                       │
//	      startup       the parent has given the app's configuration     │
//	      module        asked who it is, measures the configuration      │ closed
//	      egress        SOCKS5 and HTTP CONNECT for the app             │ cut, once the app is gone
//	      secrets       KMS has decrypted them for the app               │
//	      listeners     every address taken, before anything is served   │
//	      app API       the app may speak                                │ closed
//	      documents     nonces are gathered for the module               │ whoever waits is told
//	      app           started                                          │ SIGTERM, then SIGKILL
//	      front         clients are served                               │ accepts no more, requests finish
//
// So a request that is under way when the stop begins still has its app, and the
// app, until it is gone, still has its network.
package sidecar

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/corridor-enclave/corridor/attestation"
	"github.com/corridor-enclave/corridor/attestation/issuer"
	"github.com/corridor-enclave/corridor/attestation/nsm"
	"github.com/corridor-enclave/corridor/enclave/appapi"
	"github.com/corridor-enclave/corridor/enclave/certs"
	"github.com/corridor-enclave/corridor/enclave/config"
	"github.com/corridor-enclave/corridor/enclave/egress"
	"github.com/corridor-enclave/corridor/enclave/front"
	"github.com/corridor-enclave/corridor/enclave/inbound"
	"github.com/corridor-enclave/corridor/enclave/supervise"
	reporter "github.com/corridor-enclave/corridor/enclave/telemetry"
	"github.com/corridor-enclave/corridor/revproxy"
	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

const (
	// appShare is the app's part of the drain timeout, as a divisor: a third.
	// The requests that it has to answer get the rest.
	appShare = 3
	// stopGrace is what ending takes beside the drain timeout at the very most.
	stopGrace = 10 * time.Second
)

// Config is what a Sidecar needs beside its settings: the outside world.
type Config struct {
	Settings config.Config
	// Transport reaches the host, and is where the host's streams come in.
	Transport vsockconn.Transport
	// Module is the security module, owned by the Sidecar from New on.
	Module nsm.Module
	// Pool is where keys get their random numbers from, to be seeded from the
	// module. Nil means that it is not ours to seed.
	Pool nsm.Pool
	// OwnNetwork says that the network namespace is the enclave's own, so that
	// its loopback is ours to bring up.
	OwnNetwork bool
	// Environ is the app's environment.
	Environ []string
	// AdoptOrphans makes the Sidecar collect every child of this process, as
	// process 1 has to. See supervise.Config.
	AdoptOrphans bool
	// Now is the clock.
	Now func() time.Time
	// Log gets what an operator should know.
	Log *slog.Logger
}

// A Sidecar is everything between the app and the outside.
type Sidecar struct {
	cfg     Config
	session *nsm.Session
	process *supervise.Process // nil: the app is not ours to start
	proxy   *revproxy.Proxy    // nil: no app

	measurements *measurements
	reporter     *reporter.Reporter
	told         *slog.Logger // for lines that the host may know

	// What the parts hand to those behind them, in the order of their beginning.
	device         tapstack.Device
	queues         []tapstack.Device // further ones of it
	link           *tapstack.Link
	certificates   *certs.SelfSigned
	fronts, apis   []net.Listener
	startup        []byte                        // the app's configuration; nil: none was given
	secrets        map[string][]byte             // of the app, by name
	config         attestation.Digest            // as measured; zero without a module
	outward        *egress.Dialer                // nil: nobody is let out by it
	ways           []net.Listener                // where the app asks to be
	outwardServers []func(context.Context) error // of the way out
	inbound        []*inbound.Listener           // of fronts, those that take streams
	forwarders     []*inbound.Forwarder          // streams for apps that are no HTTP servers
	api            *appapi.API
	issuer         *issuer.Issuer // of no use without certificates
	front          *front.Front
}

// New checks what can be checked before anything begins: an app that is not
// there, for one.
func New(cfg Config) (*Sidecar, error) {
	s := &Sidecar{cfg: cfg, session: nsm.NewSession(cfg.Module), measurements: newMeasurements()}
	s.reporter = newReporter(cfg, s.measurements)
	s.told = s.reporter.Tee(cfg.Log)
	var err error
	if argv := cfg.Settings.AppArgv; len(argv) > 0 {
		s.process, err = supervise.New(supervise.Config{
			Argv: argv, Env: appEnviron(cfg.Environ, cfg.Settings.Egress), StopTimeout: s.appTimeout(), AdoptOrphans: cfg.AdoptOrphans, Log: cfg.Log,
		})
	}
	if len(cfg.Settings.Apps) > 0 && err == nil {
		s.proxy, err = revproxy.New(proxyConfig(cfg))
	}
	if err != nil {
		_ = s.session.Close() // nothing was asked of it
		return nil, fmt.Errorf("sidecar: %w", err)
	}
	return s, nil
}

// Run begins every part and blocks until ctx ends, the app ends by itself, or a
// part fails. Then it ends them all, within the drain timeout. It returns nil
// unless a part failed or the app ended with another status than 0.
func (s *Sidecar) Run(ctx context.Context) error {
	q := sequence{
		parts:       s.parts(),
		stopTimeout: s.cfg.Settings.DrainTimeout + stopGrace,
		log:         s.told,
		events:      s.reporter.Event,
	}
	return q.run(ctx)
}

// parts lists the parts in the order of the package comment.
func (s *Sidecar) parts() []part {
	set := s.cfg.Settings
	var ps []part
	if s.cfg.Pool != nil {
		ps = append(ps, part{name: "entropy", begin: s.beginEntropy})
	}
	ps = append(ps, part{name: "telemetry", run: s.reporter.Run})
	if s.cfg.OwnNetwork {
		ps = append(ps, part{name: "loopback", begin: beginLoopback})
	}
	if set.Link.On {
		ps = append(ps, part{name: "network", begin: s.beginNetwork, end: s.endNetwork})
		if set.ResolvConf != "" {
			ps = append(ps, part{name: "resolv.conf", begin: s.beginResolvConf})
		}
		ps = append(ps, part{name: "link", begin: s.beginLink, run: s.runLink})
	}
	if !set.Simulation.PlainHTTP {
		ps = append(ps, part{name: "certificate", begin: s.beginCertificate})
	}
	if set.StartupPort != 0 {
		ps = append(ps, part{name: "startup", begin: s.beginStartup})
	}
	ps = append(ps, part{name: "module", begin: s.beginModule, end: s.session.Close})
	if set.Egress.On() {
		ps = append(ps, part{name: "egress", begin: s.beginEgress, run: s.runEgress, end: s.endEgress})
	}
	if len(set.Secrets.List) > 0 {
		ps = append(ps, part{name: "secrets", begin: s.beginSecrets})
	}
	ps = append(ps,
		part{name: "listeners", begin: s.beginListeners, end: s.endListeners},
		part{name: "app API", begin: s.beginAPI, run: s.runAPI},
		part{name: "documents", begin: s.beginDocuments, run: s.runDocuments},
	)
	if s.process != nil {
		ps = append(ps, part{name: "app", run: s.runApp, mayEnd: true})
	}
	return append(ps, part{name: "front", begin: s.beginFront, run: s.runFront, end: s.closeProxy})
}

// appTimeout is how long the app has between SIGTERM and SIGKILL.
func (s *Sidecar) appTimeout() time.Duration { return s.cfg.Settings.DrainTimeout / appShare }

// frontTimeout is how long requests have to finish.
func (s *Sidecar) frontTimeout() time.Duration {
	if s.process == nil {
		return s.cfg.Settings.DrainTimeout
	}
	return s.cfg.Settings.DrainTimeout - s.appTimeout()
}
