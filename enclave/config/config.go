// Package config turns the enclave's flags, environment and TOML file into one
// valid Config, or into the list of everything that is wrong with them. It opens
// nothing and starts nothing: the sidecar does.
package config

import (
	"io"
	"log/slog"
	"net"
	"net/url"
	"time"

	"github.com/corridor-enclave/corridor/enclave/telemetry"
	"github.com/corridor-enclave/corridor/tapstack/settings"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// A Build says which binary is asking. It is a constant of the binary, never a
// setting: what a build does not have, no flag and no variable can switch on.
type Build int

const (
	// Production is the binary for real enclaves. It reaches VSOCK through the
	// kernel and has no setting that weakens it.
	Production Build = iota
	// Simulated is enclave-sim, which has the settings of Simulation as well.
	Simulated
)

// Program is the name of the build's binary.
func (b Build) Program() string {
	if b == Simulated {
		return "enclave-sim"
	}
	return "enclave"
}

// A Config is what the user asked for, complete and valid.
type Config struct {
	// FQDN is the name in the certificate, a DNS name or an IP address. It is
	// empty only if TLS is off.
	FQDN string
	// KeyLifetime is how long a TLS key is used; 0 is as long as the enclave runs.
	KeyLifetime time.Duration
	// Source is where the image's source can be read, for the page that explains
	// how to verify; nil if unknown.
	Source *url.URL
	// Apps are the app's HTTP addresses, http://HOST:PORT, h2c://HOST:PORT or
	// unix:PATH; none means that nothing is proxied.
	Apps []*url.URL
	// Limits bound what clients may ask of the app.
	Limits Limits
	// Secrets are for the app, from KMS.
	Secrets Secrets
	// AppArgv is the command that starts the app; nil means that it is not ours
	// to start.
	AppArgv []string
	// WaitForApp holds the app's requests back until the app says it is ready.
	WaitForApp bool
	// StartupPort is the VSOCK port on which the parent gives the app's
	// configuration; 0 means that there is none.
	StartupPort uint32
	// AppAPI is where the app's own API listens: unix sockets and loopback only.
	// Empty means off.
	AppAPI []Endpoint
	// Front is where clients are served, at least one.
	Front []Endpoint
	// Streams are the VSOCK ports whose streams go to an app that is no HTTP
	// server.
	Streams []Forward
	// Egress is the way out for what can be told to use it.
	Egress Egress
	// Link is the way out of the enclave.
	Link Link
	// ResolvConf is the file that is made to name the link's resolver; empty
	// means that none is touched.
	ResolvConf string
	// Telemetry is what the host is told.
	Telemetry Telemetry
	// DrainTimeout bounds the whole orderly stop.
	DrainTimeout time.Duration
	// LogLevel is the lowest level that is logged.
	LogLevel slog.Level
	// Simulation is all zero in Production.
	Simulation Simulation
}

// An Endpoint is what net.Listen wants, "tcp" with HOST:PORT or "unix" with a path;
// or it is "vsock" with a port.
type Endpoint struct {
	Network, Address string
}

// A Forward leads the streams of a VSOCK port to an app.
type Forward struct {
	Port uint32
	App  Endpoint
}

// A Link is how the enclave reaches its host.
type Link struct {
	// On is false if the enclave is to have no network but its loopback.
	On bool
	// VSOCK names the transport: "kernel", or "dir:PATH" in a simulation.
	VSOCK string
	// Parent and Port are the host's VSOCK endpoint.
	Parent vsockconn.CID
	Port   uint32
	// TAP is the name of the device that is created.
	TAP string
	// MTU is the device's, without the Ethernet header.
	MTU int
	// MAC is the device's hardware address.
	MAC net.HardwareAddr
	// Plain keeps to gvproxy's framing, whatever the host speaks.
	Plain bool
	// Offload leaves segmentation and checksums to the host.
	Offload bool
	// Lanes is how many streams the link may have, each with a queue of the device.
	Lanes int
	// WriteMax is the most bytes that one write to the stream may have; 0 is no
	// limit.
	WriteMax int
}

// A Simulation holds what only enclave-sim knows.
type Simulation struct {
	// Isolate asks for a network namespace without any network.
	Isolate bool
	// CID is the simulated enclave's own.
	CID vsockconn.CID
	// NSMSeed determines the simulated module's PKI and measurements.
	NSMSeed string
	// NSMOut is the folder that gets root.pem and policy.toml; empty means none.
	NSMOut string
	// NSMDebug makes the module measure zeros, like an enclave in debug mode.
	NSMDebug bool
	// NSMLatency is how long the simulated module takes for each answer.
	NSMLatency time.Duration
	// PlainHTTP turns TLS off.
	PlainHTTP bool
	// Metrics is the unix socket on which the process tells what it takes; empty
	// means none.
	Metrics string
	// CPUProfile is the file that the process writes a profile of its whole life to;
	// empty means none.
	CPUProfile string
}

// Parse reads args (without the program's name) and environ (as os.Environ gives
// it). The error, if any, joins every mistake, each named as the user typed it:
// the user has to mend them, so the program exits with 2. help reports that the
// user asked for WriteUsage instead; then there is no Config.
func Parse(build Build, args, environ []string) (c Config, help bool, err error) {
	d := declare(build)
	rest, help := d.set.Load(args, environ)
	if help {
		return Config{}, true, nil
	}
	c = d.assemble(rest)
	d.check(c, rest)
	if err := d.set.Err(); err != nil {
		return Config{}, false, err
	}
	return c, false, nil
}

// WriteUsage explains every setting of the build.
func WriteUsage(w io.Writer, build Build) error {
	return declare(build).set.WriteUsage(w, "--fqdn NAME [--app URL] [flags] [-- CMD ARG...]")
}

// A declaration is the set of settings of one build, with where their values go.
type declaration struct {
	set   *settings.Set
	build Build

	fqdn        *string
	source      *url.URL
	keyLifetime *time.Duration
	apps        *[]*url.URL
	limits      limits
	egress      egressSettings
	secrets     secrets
	appCmd      *[]string
	waitForApp  *bool
	startupPort *uint32
	appAPI      *[]Endpoint
	front       *[]Endpoint
	streams     *[]Forward

	link     *bool
	vsock    *string
	parent   *vsockconn.CID
	linkPort *uint32
	tap      *string
	mtu      *int
	mac      *net.HardwareAddr
	framing  *bool
	offload  *bool
	writeMax *vsockconn.WriteMax
	lanes    *int

	resolvConf *string
	drain      *time.Duration
	logLevel   *slog.Level

	telemetry     *telemetry.Mode
	telemetryPort *uint32

	simulation simulation
}
