// Package config is what the user of host may set, from flags, environment and
// TOML file into one Config that cannot be wrong. It opens nothing.
package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/corridor-enclave/corridor/host/gateway"
	"github.com/corridor-enclave/corridor/host/publish"
	"github.com/corridor-enclave/corridor/host/route"
	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/settings"
	"github.com/corridor-enclave/corridor/tapstack/simvsock"
	"github.com/corridor-enclave/corridor/tapstack/stream"
	"github.com/corridor-enclave/corridor/tapstack/telemetry"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// Limits of --mtu: the smallest that every IPv4 host must take (RFC 791), and
// the largest whose frames the link's length field can say.
const (
	minMTU = 576
	maxMTU = tapstack.MaxFrame - tapstack.MinFrame
)

// A Config is valid.
type Config struct {
	Transport    vsockconn.Transport
	LinkPort     uint32
	Telemetry    uint32 // the VSOCK port; 0: none
	EgressPort   uint32 // the VSOCK port of calls; 0: none
	Credentials  uint32 // the VSOCK port of questions for credentials; 0: none
	Metadata     string // the URL of the instance metadata service
	Publish      []publish.Port
	Enclaves     Enclaves
	Control      string // "unix:PATH", "tcp:HOST:PORT", or "" for none
	Observe      string // as Control
	MTU          int
	WriteMax     int // bytes; 0: no limit
	Lanes        int // of one link, at most
	LargeFrames  bool
	DNS          []netip.AddrPort // empty: the host's own resolvers
	HostLoopback bool
	IPv6         gateway.IPv6
	Egress       gateway.Egress
	LinkAPI      bool
	Grace        time.Duration
	DrainTimeout time.Duration
	Published    Published
	LogLevel     slog.Level

	Document Document // the settings that this was made of
	File     File     // what the TOML file had to do with it; not after Document.Config
}

// Synopsis is the line of help behind the program's name.
const Synopsis = "[--publish ADDR=stream:PORT[@CID,...]]... [--SETTING VALUE]..."

// Load reads arguments (without the program's name) and environment. If help was
// asked for, it returns the text and no Config. The error names every mistake, as
// the user typed it.
func Load(args, environ []string) (c Config, help string, err error) {
	s := settings.New("host")
	build := declare(s, environ)
	rest, wantsHelp := s.Load(args, environ)
	if wantsHelp {
		var b strings.Builder
		err := s.WriteUsage(&b, Synopsis)
		return Config{}, b.String(), err
	}
	for _, arg := range rest {
		s.Reject("publish", "%q: unexpected argument", arg)
	}
	if c, err = build(); err != nil {
		return Config{}, "", err
	}
	c.File.Path, c.File.Said = s.File()
	c.File.Said = canonical(c.File.Said)
	c.File.Above = s.Above()
	return c, "", nil
}

// declare declares every setting, and returns what makes a Config of them once
// they are loaded.
func declare(s *settings.Set, environ []string) func() (Config, error) {
	transport := settings.Var(s, "vsock", "kernel", "where enclaves are: `kernel`, dir:PATH or hybrid:PATH", parseTransport)
	linkPort := settings.Var(s, "link-port", strconv.Itoa(tapstack.LinkPort), "VSOCK `port` that enclaves open the link to", parsePort)
	specs := settings.List(s, "publish", "carry a port of this host into an enclave: `ADDR=stream:PORT[@CID,...]`, or ADDR=link:PORT[@CID,...]", publish.ParseSpec)
	routes := settings.List(s, "route", "carry those clients of a published port that ask for a name, by TLS (SNI) or HTTP (Host), to enclaves of their own: `ADDR/NAME@CID,...`", route.Parse)
	enclaves := declareEnclaves(s)
	telemetryPort := settings.Var(s, "telemetry-port", strconv.Itoa(telemetry.Port), "VSOCK `port` on which enclaves tell how they are, or off", parseTelemetryPort)
	egressPort := settings.Var(s, "egress-port", strconv.Itoa(stream.CallPort), "VSOCK `port` on which enclaves connect to the outside without a link, under the same rules, or off", parseTelemetryPort)
	credentialsPort := settings.Var(s, "credentials-port", "off", "VSOCK `port` on which enclaves get the credentials of this instance's role, such as 1028, or off", parseTelemetryPort)
	metadata := settings.Var(s, "metadata-service", "http://169.254.169.254", "`URL` of the instance metadata service that has them", parseMetadata)
	control := settings.Var(s, "control", DefaultControl(environ), "address of the HTTP API: `unix:PATH`, tcp:HOST:PORT or off", parseControl)
	observe := settings.Var(s, "observe", "off", "address of the status page, metrics and probes alone, where nothing can be changed: `unix:PATH`, tcp:HOST:PORT or off", parseControl)
	mtu := settings.Var(s, "mtu", strconv.Itoa(tapstack.DefaultMTU), "largest IP packet sent to an enclave, in `bytes`", parseMTU)
	peer := settings.Var(s, "peer", "stock", "what enclaves that speak gvproxy's framing are: `stock`, or nitriding, which takes large frames", parsePeer)
	writeMax := settings.Var(s, "vsock-write-max", "auto", "largest write to a VSOCK connection in `bytes`, or off; auto limits those to AF_VSOCK", vsockconn.ParseWriteMax)
	lanes := settings.Var(s, "lanes", "auto", "VSOCK streams of one link, `1 to 8 or auto`: auto is one for each two CPUs, at most 4; of both ends the smaller number counts", tapstack.ParseLanes)
	resolvers := settings.List(s, "dns", "resolver for the enclaves' queries, `ADDR[:PORT]` (default: those of /etc/resolv.conf)", parseResolver)
	loopback := settings.Var(s, "host-loopback", "off", "let enclaves reach this host's 127.0.0.1 as "+tapstack.HostAliasAddr().String()+", `on|off`", settings.OnOff)
	allow := settings.List(s, "egress-allow", "where enclaves may connect to, and nowhere else: `ADDR[/BITS][:PORT[-PORT]]`, or NAME or *.NAME with or without ports", gateway.ParseDestination)
	ipv6 := settings.Var(s, "ipv6", "auto", "IPv6 for enclaves, `auto`, on or off; auto gives it while this host has a route to the IPv6 internet", gateway.ParseIPv6)
	deny := settings.List(s, "egress-deny", "where enclaves may not connect to, even if it is allowed: `DESTINATION`, as for egress-allow", gateway.ParseDestination)
	linkAPI := settings.Var(s, "link-api", "off", "let enclaves publish ports of this host for themselves, `on|off`", settings.OnOff)
	grace := settings.Var(s, "grace", gateway.DefaultGrace.String(), "how long an enclave's flows outlive its link, a `duration`", parseDuration)
	carried := declarePublished(s)
	drain := settings.Var(s, "drain-timeout", "30s", "how long published connections may go on after SIGTERM, a `duration`", parseDuration)
	level := settings.Var(s, "log-level", "info", "least important log lines: `debug`, info, warn or error", settings.Level)

	return func() (Config, error) {
		rejectDuplicates(s, *specs)
		published := ports(s, *specs, *routes)
		if err := s.Err(); err != nil {
			return Config{}, err
		}
		limit := writeMax.On((*transport).String())
		return Config{
			Transport: vsockconn.Limited(*transport, limit), LinkPort: *linkPort, Telemetry: *telemetryPort, EgressPort: *egressPort, Credentials: *credentialsPort, Metadata: *metadata, Publish: published, Enclaves: enclaves(), Control: *control, Observe: *observe, MTU: *mtu, DNS: *resolvers,
			WriteMax: limit, Lanes: *lanes, LargeFrames: *peer,
			HostLoopback: *loopback, IPv6: *ipv6, Egress: gateway.Egress{Allow: *allow, Deny: *deny}, LinkAPI: *linkAPI, Grace: *grace, DrainTimeout: *drain, LogLevel: *level,
			Published: carried(), Document: canonical(s.Values()),
		}, nil
	}
}

// rejectDuplicates finds ports that are published twice; port 0 is a different
// one each time.
func rejectDuplicates(s *settings.Set, specs []publish.Spec) {
	seen := map[string]bool{}
	for _, spec := range specs {
		if seen[spec.Local] && !strings.HasSuffix(spec.Local, ":0") {
			s.Reject("publish", "%s is published twice", spec.Local)
		}
		seen[spec.Local] = true
	}
}

// DefaultControl is where the API is if nobody says: a place that this user can
// write to, that of the session or that of the system.
func DefaultControl(environ []string) string {
	for _, kv := range environ {
		if dir, ok := strings.CutPrefix(kv, "XDG_RUNTIME_DIR="); ok && filepath.IsAbs(dir) {
			return "unix:" + filepath.Join(dir, "corridor", "control.sock")
		}
	}
	return "unix:/run/corridor/control.sock"
}

func parseTransport(v string) (vsockconn.Transport, error) {
	return simvsock.Parse(v, vsockconn.CIDParent)
}

func parsePort(v string) (uint32, error) {
	n, err := strconv.ParseUint(v, 10, 32)
	if err != nil || n == 0 || n == 1<<32-1 {
		return 0, errors.New("not a VSOCK port: want 1 to 4294967294")
	}
	return uint32(n), nil
}

func parseControl(v string) (string, error) {
	if v == "off" {
		return "", nil
	}
	kind, where, _ := strings.Cut(v, ":")
	switch {
	case kind == "unix" && where != "":
		return v, nil
	case kind == "tcp":
		return v, publish.CheckLocal(where)
	}
	return "", errors.New("want unix:PATH, tcp:HOST:PORT or off")
}

func parseMTU(v string) (int, error) {
	n, err := strconv.Atoi(v)
	if err != nil || n < minMTU || n > maxMTU {
		return 0, fmt.Errorf("want %d to %d", minMTU, maxMTU)
	}
	return n, nil
}

// parsePeer reports whether plain peers take large frames.
func parsePeer(v string) (large bool, err error) {
	if v != "stock" && v != "nitriding" {
		return false, errors.New("want stock or nitriding")
	}
	return v == "nitriding", nil
}

func parseResolver(v string) (netip.AddrPort, error) {
	if addr, err := netip.ParseAddr(v); err == nil {
		return netip.AddrPortFrom(addr, 53), nil
	}
	at, err := netip.ParseAddrPort(v)
	if err != nil {
		return netip.AddrPort{}, errors.New("not an IP address, with or without a port")
	}
	return at, nil
}

func parseDuration(v string) (time.Duration, error) {
	d, err := time.ParseDuration(v)
	if err != nil || d <= 0 {
		return 0, errors.New(`not a duration above zero, such as "30s"`)
	}
	return d, nil
}
