package config

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/kballard/go-shellquote"

	"github.com/corridor-enclave/corridor/enclave/certs"
	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

const (
	// minMTU is what every IPv4 host must accept (RFC 791, total length).
	minMTU = 576
	// maxMTU leaves room for the Ethernet header in the largest frame.
	maxMTU = 65535 - 14
	// maxDrain is longer than any service manager waits.
	maxDrain = time.Hour
	// maxName is the longest DNS name in text form (RFC 1035, section 2.3.4).
	maxName = 253
	// maxUnixPath leaves room for the terminating zero in sockaddr_un.
	maxUnixPath = 107
)

// networkVSOCK is the network of an Endpoint whose address is a VSOCK port.
const networkVSOCK = "vsock"

// VSOCKPort is the port of an endpoint on VSOCK; 0 if it is on another network.
func (e Endpoint) VSOCKPort() uint32 {
	if e.Network != networkVSOCK {
		return 0
	}
	port, _ := parsePort(e.Address) // was one when the endpoint was made
	return port
}

// String is the endpoint as the user types it.
func (e Endpoint) String() string { return e.Network + ":" + e.Address }

func isAnyPort(e Endpoint) bool {
	return e.Network == "tcp" && strings.HasSuffix(e.Address, ":0")
}

func parseText(v string) (string, error) {
	if v == "" {
		return "", errors.New("empty")
	}
	return v, nil
}

// parseFQDN accepts a host name (RFC 1123, section 2.1) or an IP address.
func parseFQDN(v string) (string, error) {
	if _, err := netip.ParseAddr(v); err == nil {
		return v, nil
	}
	name := strings.ToLower(strings.TrimSuffix(v, "."))
	if name == "" || len(name) > maxName {
		return "", fmt.Errorf("not a host name: %d bytes, 1 to %d are allowed", len(name), maxName)
	}
	for label := range strings.SplitSeq(name, ".") {
		if !isLabel(label) {
			return "", fmt.Errorf("not a host name: %q is no label of one", label)
		}
	}
	return name, nil
}

func isLabel(l string) bool {
	if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
		return false
	}
	return strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// parseApp accepts what the reverse proxy can reach, and says what to do about
// the rest.
func parseApp(v string) (*url.URL, error) {
	if path, ok := strings.CutPrefix(v, "unix:"); ok {
		if err := checkUnixPath(path); err != nil {
			return nil, err
		}
		return &url.URL{Scheme: "unix", Path: path}, nil
	}
	u, err := url.Parse(v)
	switch {
	case err != nil:
		return nil, errors.New("neither http://HOST:PORT nor unix:PATH")
	case u.Scheme == "https":
		return nil, errors.New("the app is inside the same enclave, so it is spoken to without TLS: use http://")
	case u.Scheme != "http" && u.Scheme != "h2c" || u.Hostname() == "":
		return nil, errors.New("neither http://HOST:PORT nor unix:PATH")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return nil, errors.New("more than http://HOST:PORT: clients choose path and query")
	}
	if p := u.Port(); p != "" {
		if _, err := parseTCPPort(p, 1); err != nil {
			return nil, err
		}
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}

// parseSource accepts only what is safe as a link on a page.
func parseSource(v string) (*url.URL, error) {
	u, err := url.Parse(v)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || u.User != nil {
		return nil, errors.New("not an http or https URL")
	}
	return u, nil
}

func parseCommand(v string) ([]string, error) {
	argv, err := shellquote.Split(v)
	if err != nil {
		return nil, fmt.Errorf("cannot be split into words: %s", strings.ToLower(err.Error()))
	}
	if len(argv) == 0 || argv[0] == "" {
		return nil, errors.New("names no command")
	}
	return argv, nil
}

func parseFront(v string) (Endpoint, error) {
	kind, rest, _ := strings.Cut(v, ":")
	switch kind {
	case "tcp":
		return parseTCP(rest)
	case networkVSOCK:
		port, err := parsePort(rest)
		return Endpoint{Network: networkVSOCK, Address: strconv.FormatUint(uint64(port), 10)}, err
	}
	return Endpoint{}, errors.New("neither tcp:HOST:PORT nor vsock:PORT")
}

// parseForward reads PORT=HOST:PORT or PORT=unix:PATH, where the app is.
func parseForward(v string) (Forward, error) {
	from, to, ok := strings.Cut(v, "=")
	if !ok {
		return Forward{}, errors.New("neither PORT=127.0.0.1:PORT nor PORT=unix:PATH")
	}
	port, err := parsePort(from)
	if err != nil {
		return Forward{}, fmt.Errorf("VSOCK port %q %w", from, err)
	}
	if path, ok := strings.CutPrefix(to, "unix:"); ok {
		return Forward{Port: port, App: Endpoint{Network: "unix", Address: path}}, checkUnixPath(path)
	}
	app, err := parseTCP(to)
	if err != nil {
		return Forward{}, err
	}
	host, appPort, _ := net.SplitHostPort(app.Address) // parseTCP joined them
	if a, err := netip.ParseAddr(host); err != nil || !a.IsLoopback() || appPort == "0" {
		return Forward{}, errors.New("the app is inside the same enclave: name a loopback address and its port")
	}
	return Forward{Port: port, App: app}, nil
}

// parseAPI refuses every address that something outside the enclave could
// reach: the app's API asks nobody for a password.
func parseAPI(v string) (Endpoint, error) {
	kind, rest, _ := strings.Cut(v, ":")
	switch kind {
	case off:
		return Endpoint{}, nil
	case "unix":
		return Endpoint{Network: "unix", Address: rest}, checkUnixPath(rest)
	case "tcp":
		e, err := parseTCP(rest)
		if err != nil {
			return Endpoint{}, err
		}
		host, _, _ := net.SplitHostPort(e.Address)
		if a, err := netip.ParseAddr(host); err != nil || !a.IsLoopback() {
			return Endpoint{}, errors.New("not a loopback address: whoever reaches the app's API may use it")
		}
		return e, nil
	}
	return Endpoint{}, errors.New("neither unix:PATH nor tcp:127.0.0.1:PORT nor off")
}

// parseTCP takes an address, not a name: there is no resolver yet when the
// sidecar listens.
func parseTCP(hostport string) (Endpoint, error) {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return Endpoint{}, errors.New("not tcp:HOST:PORT (an IPv6 address goes in brackets)")
	}
	if host != "" {
		if _, err := netip.ParseAddr(host); err != nil {
			return Endpoint{}, fmt.Errorf("%q is not an IP address", host)
		}
	}
	n, err := parseTCPPort(port, 0)
	if err != nil {
		return Endpoint{}, err
	}
	return Endpoint{Network: "tcp", Address: net.JoinHostPort(host, strconv.Itoa(n))}, nil
}

func parseTCPPort(v string, least int) (int, error) {
	n, err := strconv.ParseUint(v, 10, 16)
	if err != nil || int(n) < least {
		return 0, fmt.Errorf("port %q is outside %d..65535", v, least)
	}
	return int(n), nil
}

func checkUnixPath(path string) error {
	if path == "" || len(path) > maxUnixPath || strings.ContainsRune(path, 0) {
		return fmt.Errorf("the path of a unix socket has 1 to %d bytes, not %d", maxUnixPath, len(path))
	}
	return nil
}

// parseVSOCK checks the form only; the transport's own package does the rest.
func (b Build) parseVSOCK(v string) (string, error) {
	path, isDir := strings.CutPrefix(v, "dir:")
	switch {
	case v == "kernel":
		return v, nil
	case b == Production:
		return "", errors.New("this binary knows kernel only; simulations are run with enclave-sim")
	case strings.HasPrefix(v, "hybrid:"):
		return "", errors.New("is the host's side of a virtual machine; an enclave takes kernel or dir:PATH")
	case !isDir || path == "":
		return "", errors.New("neither kernel nor dir:PATH")
	}
	return v, nil
}

// transports lists the values of --vsock in words.
func (b Build) transports() string {
	if b == Simulated {
		return "kernel, or dir:PATH for unix sockets in a folder"
	}
	return "kernel"
}

func parseNSM(v string) (string, error) {
	if v != "sim" {
		return "", errors.New("only sim is known here; the real module is used by the enclave binary")
	}
	return v, nil
}

// parseCID leaves out the two numbers that mean no machine: 0, the hypervisor of
// old, and the wildcard.
func parseCID(v string) (vsockconn.CID, error) {
	n, err := strconv.ParseUint(v, 10, 32)
	if err != nil || n == 0 || n == math.MaxUint32 {
		return 0, errors.New("is outside 1..4294967294")
	}
	return vsockconn.CID(n), nil
}

func parsePort(v string) (uint32, error) {
	n, err := strconv.ParseUint(v, 10, 32)
	if err != nil || n == 0 || n == math.MaxUint32 {
		return 0, errors.New("is outside 1..4294967294")
	}
	return uint32(n), nil
}

// parseOptionalPort accepts a VSOCK port, or off for 0.
func parseOptionalPort(v string) (uint32, error) {
	if v == off {
		return 0, nil
	}
	return parsePort(v)
}

// parseInterface follows dev_valid_name in the kernel's net/core/dev.c; '%' is
// refused because TUNSETIFF would expand it.
func parseInterface(v string) (string, error) {
	if v == "" || len(v) > 15 || v == "." || v == ".." || strings.ContainsAny(v, "/:%\x00 \t\n\v\f\r") {
		return "", errors.New("not a device name: 1 to 15 bytes without '/', ':', '%' and blanks")
	}
	return v, nil
}

func parseMTU(v string) (int, error) {
	n, err := strconv.Atoi(v)
	if err != nil || n < minMTU || n > maxMTU {
		return 0, fmt.Errorf("is outside %d..%d", minMTU, maxMTU)
	}
	return n, nil
}

// parseFraming reports whether the framing is to be plain.
func parseFraming(v string) (plain bool, err error) {
	if v != "auto" && v != "plain" {
		return false, errors.New("neither auto nor plain")
	}
	return v == "plain", nil
}

func parseMAC(v string) (net.HardwareAddr, error) {
	mac, err := net.ParseMAC(v)
	switch {
	case err != nil || len(mac) != 6:
		return nil, errors.New("not an address of six bytes, like " + tapstack.EnclaveMAC().String())
	case mac[0]&1 != 0:
		return nil, errors.New("is a group address; a device needs one of its own")
	case mac.String() == "00:00:00:00:00:00":
		return nil, errors.New("is no address")
	case mac.String() == tapstack.GatewayMAC().String():
		return nil, errors.New("is the gateway's")
	}
	return mac, nil
}

func parseTimeout(v string) (time.Duration, error) {
	d, err := time.ParseDuration(v)
	if err != nil {
		return 0, errors.New("not a duration, like 30s or 2m")
	}
	if d <= 0 || d > maxDrain {
		return 0, fmt.Errorf("is outside 1ns..%s", maxDrain)
	}
	return d, nil
}

// parseKeyLifetime accepts what leaves a key's certificate time to end.
func parseKeyLifetime(v string) (time.Duration, error) {
	if v == "0" {
		return 0, nil
	}
	d, err := time.ParseDuration(v)
	if err != nil {
		return 0, errors.New("not a duration such as 720h")
	}
	if longest := certs.Lifetime - certs.RenewBefore; d < certs.MinKeyLifetime || d > longest {
		return 0, fmt.Errorf("is outside %s..%s", certs.MinKeyLifetime, longest)
	}
	return d, nil
}
