package config

import (
	"net/url"
	"slices"
	"strconv"

	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/settings"
	"github.com/corridor-enclave/corridor/tapstack/telemetry"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// Where nothing else was asked for.
const (
	defaultFront      = "tcp::443"
	defaultStreams    = "vsock:1443"
	defaultAPISocket  = "unix:/run/corridor/app.sock"
	defaultAPIAddress = "tcp:127.0.0.1:8080"
	defaultResolvConf = "/etc/resolv.conf"
	off               = "off"
)

// declare names every setting of the build, in the order of help.
func declare(build Build) *declaration {
	s := settings.New(build.Program())
	d := &declaration{set: s, build: build, source: new(url.URL)}
	d.fqdn = settings.Var(s, "fqdn", "", "`name` that clients use and that the certificate is for", parseFQDN)
	d.keyLifetime = settings.Var(s, "key-lifetime", "720h", "how `long` a TLS key is used until another one takes its place, announced in documents before; 0 for as long as the enclave runs", parseKeyLifetime)
	d.apps = settings.List(s, "app", "the app's `URL`: http://HOST:PORT or unix:PATH, or h2c://HOST:PORT if it speaks HTTP/2 without TLS, as for gRPC; several share the requests", parseApp)
	d.appCmd = settings.Var(s, "app-cmd", "", "`command line` that starts the app, quoted as for a shell but never given to one; or put the words behind --", parseCommand)
	d.waitForApp = settings.Bool(s, "wait-for-app", "answer the app's requests with 503 until the app has called GET /enclave/ready")
	d.startupPort = settings.Var(s, "startup-port", off, "VSOCK `port` on which the parent gives the app its configuration before it starts, such as 1027, or off", parseOptionalPort)
	d.appAPI = settings.List(s, "app-api", "where the app's own API listens: `unix:PATH or tcp:127.0.0.1:PORT`, or off ("+d.defaultAPIHelp()+")", parseAPI)
	declareURL(s, d.source, "source-url", "`URL` of the image's source, shown to whoever wants to verify", parseSource)
	d.front = settings.List(s, "front", "where clients are served: `tcp:HOST:PORT`, or vsock:PORT for streams of the host ("+d.defaultFrontHelp()+")", parseFront)
	d.streams = settings.List(s, "stream", "relay the host's streams to a VSOCK port to an app that is no HTTP server: `PORT=127.0.0.1:PORT` or PORT=unix:PATH", parseForward)

	d.link = settings.Var(s, "link", "on", "`on or off`: a network through the host", settings.OnOff)
	d.vsock = settings.Var(s, "vsock", "kernel", "`transport` to the host: "+build.transports(), build.parseVSOCK)
	d.parent = settings.Var(s, "parent-cid", vsockconn.CIDParent.String(), "the host's `CID`", parseCID)
	d.linkPort = settings.Var(s, "link-port", strconv.Itoa(tapstack.LinkPort), "the link's VSOCK `port` on the host", parsePort)
	d.tap = settings.Var(s, "tap-name", "tap0", "`name` of the link's network device", parseInterface)
	d.mtu = settings.Var(s, "mtu", strconv.Itoa(tapstack.DefaultMTU), "largest packet on the link in `bytes`, without the Ethernet header; both ends must agree", parseMTU)
	d.framing = settings.Var(s, "link-framing", "auto", "`auto or plain`: plain asks no host for more than gvproxy knows", parseFraming)
	d.offload = settings.Var(s, "offload", "on", "`on or off`: leave segmentation and checksums of the link to the host", settings.OnOff)
	d.writeMax = settings.Var(s, "vsock-write-max", "auto", "largest write to a VSOCK connection in `bytes`, or off; auto limits those to AF_VSOCK", vsockconn.ParseWriteMax)
	d.lanes = settings.Var(s, "lanes", "auto", "VSOCK streams of the link, `1 to 8 or auto`: auto is one for each two CPUs, at most 4; of both ends the smaller number counts", tapstack.ParseLanes)
	d.mac = settings.Var(s, "mac", tapstack.EnclaveMAC().String(), "hardware `address` on the link", parseMAC)
	d.resolvConf = settings.Var(s, "resolv-conf", "", "`file` to point at the link's resolver, or off (default "+defaultResolvConf+" where the link is on)", parseText)

	d.drain = settings.Var(s, "drain-timeout", "30s", "how `long` an orderly stop may take", parseTimeout)
	d.telemetry = settings.Var(s, "telemetry", "events", "what the host is told of the sidecar: `off`, events (and metrics), or logs (as well)", parseTelemetry)
	d.telemetryPort = settings.Var(s, "telemetry-port", strconv.Itoa(telemetry.Port), "VSOCK `port` on the host to tell it to", parsePort)
	d.logLevel = settings.Var(s, "log-level", "info", "lowest `level` that is logged: debug, info, warn, error", settings.Level)
	d.limits.declare(s)
	d.egress.declare(s)
	d.secrets.declare(s)
	if build == Simulated {
		d.simulation.declare(s)
	}
	for _, a := range nitridingAliases() {
		settings.Alias(s, a.theirs, a.ours, a.convert)
	}
	return d
}

// declareURL declares a setting whose value stays empty if nobody names it.
func declareURL(s *settings.Set, to *url.URL, name, usage string, parse func(string) (*url.URL, error)) {
	settings.Var(s, name, "", usage, func(v string) (struct{}, error) {
		u, err := parse(v)
		if err == nil {
			*to = *u
		}
		return struct{}{}, err
	})
}

// orNil turns a URL that nobody named into nil.
func orNil(u *url.URL) *url.URL {
	if *u == (url.URL{}) {
		return nil
	}
	return u
}

// defaultAPIHelp is the default of --app-api in words.
func (d *declaration) defaultAPIHelp() string {
	if d.build == Simulated {
		return "default " + defaultAPIAddress + " with --isolate, else off"
	}
	return "default both " + defaultAPISocket + " and " + defaultAPIAddress
}

// assemble builds the Config from what was parsed, with the defaults that depend
// on other settings. It is valid only if check finds no mistake.
func (d *declaration) assemble(rest []string) Config {
	c := Config{
		FQDN: *d.fqdn, KeyLifetime: *d.keyLifetime, Source: orNil(d.source), Apps: *d.apps, Limits: d.limits.assemble(), Egress: d.egress.assemble(d.secrets.assemble()), Secrets: d.secrets.assemble(),
		AppArgv: *d.appCmd, WaitForApp: *d.waitForApp, StartupPort: *d.startupPort, AppAPI: d.assembleAPI(), Front: d.assembleFront(), Streams: *d.streams,
		Link: Link{
			On: *d.link, VSOCK: *d.vsock, Parent: *d.parent, Port: *d.linkPort,
			TAP: *d.tap, MTU: *d.mtu, MAC: *d.mac,
			Plain: *d.framing, Offload: *d.offload, Lanes: *d.lanes, WriteMax: d.writeMax.On(*d.vsock),
		},
		DrainTimeout: *d.drain, LogLevel: *d.logLevel, Telemetry: d.assembleTelemetry(),
	}
	if len(rest) > 0 {
		c.AppArgv = rest
	}
	if d.build == Simulated {
		c.Simulation = d.simulation.assemble()
	}
	if c.Link.On {
		c.ResolvConf = d.assembleResolvConf()
	}
	return c
}

// defaultFrontHelp is the default of --front in words.
func (d *declaration) defaultFrontHelp() string {
	text := "default both " + defaultFront + " and " + defaultStreams
	if d.build == Simulated {
		text += ", the latter not with --vsock kernel"
	}
	return text
}

// assembleFront serves both roads. A simulation leaves the machine's own VSOCK
// alone unless asked.
func (d *declaration) assembleFront() []Endpoint {
	if len(*d.front) > 0 {
		return *d.front
	}
	front := []Endpoint{{Network: "tcp", Address: defaultFront[len("tcp:"):]}}
	if d.build == Simulated && *d.vsock == "kernel" {
		return front
	}
	return append(front, Endpoint{Network: networkVSOCK, Address: defaultStreams[len("vsock:"):]})
}

// assembleAPI decides where the app's API listens. A simulation that shares the
// machine's network has none unless asked: several of them would want one port.
func (d *declaration) assembleAPI() []Endpoint {
	if d.set.IsSet("app-api") {
		return slices.DeleteFunc(slices.Clone(*d.appAPI), func(e Endpoint) bool { return e == Endpoint{} })
	}
	socket := Endpoint{Network: "unix", Address: defaultAPISocket[len("unix:"):]}
	loopback := Endpoint{Network: "tcp", Address: defaultAPIAddress[len("tcp:"):]}
	switch {
	case d.build == Production:
		return []Endpoint{socket, loopback}
	case *d.simulation.isolate:
		return []Endpoint{loopback}
	}
	return nil
}

// assembleResolvConf spares the machine's own file: a simulation has one of its
// own only if it is isolated.
func (d *declaration) assembleResolvConf() string {
	switch {
	case *d.resolvConf == off:
		return ""
	case *d.resolvConf != "":
		return *d.resolvConf
	case d.build == Simulated && !*d.simulation.isolate:
		return ""
	}
	return defaultResolvConf
}

// check names what does not fit together.
func (d *declaration) check(c Config, rest []string) {
	s := d.set
	if c.FQDN == "" && !c.Simulation.PlainHTTP && !s.IsSet("fqdn") {
		s.Reject("fqdn", "missing: the certificate needs the name that clients use")
	}
	if rest != nil && s.IsSet("app-cmd") {
		s.Reject("app-cmd", "the command behind -- is given as well; keep one of them")
	}
	if rest != nil && len(rest) == 0 {
		s.Reject("app-cmd", "nothing follows the --")
	}
	if c.WaitForApp && len(c.AppAPI) == 0 {
		s.Reject("wait-for-app", "the app has nowhere to say that it is ready: give --app-api")
	}
	if s.IsSet("app-api") && len(c.AppAPI) > 0 && slices.Contains(*d.appAPI, Endpoint{}) {
		s.Reject("app-api", "off and an address exclude each other")
	}
	if s.IsSet("resolv-conf") && *d.resolvConf != off && !c.Link.On {
		s.Reject("resolv-conf", "without the link there is no resolver to name")
	}
	d.checkTwice("front", c.Front)
	d.checkTwice("app-api", c.AppAPI)
	d.checkStreams(c)
	d.egress.check(s, c)
	d.secrets.check(s, c, d.build)
	if d.build == Simulated {
		d.simulation.check(s, c)
	}
}

// checkStreams rejects a VSOCK port that leads to two places.
func (d *declaration) checkStreams(c Config) {
	taken := map[uint32]string{}
	for _, e := range c.Front {
		taken[e.VSOCKPort()] = "the front"
	}
	for _, f := range c.Streams {
		if by, ok := taken[f.Port]; ok {
			d.set.Reject("stream", "VSOCK port %d is taken by %s", f.Port, by)
		}
		taken[f.Port] = f.App.String()
	}
}

// checkTwice rejects an endpoint that is named twice; port 0 is a fresh one
// each time.
func (d *declaration) checkTwice(name string, es []Endpoint) {
	for i, e := range es {
		if slices.Contains(es[:i], e) && !isAnyPort(e) {
			d.set.Reject(name, "%s is given twice", e)
		}
	}
}
