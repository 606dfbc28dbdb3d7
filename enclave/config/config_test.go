package config_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/enclave/config"
	"github.com/corridor-enclave/corridor/enclave/telemetry"
	"github.com/corridor-enclave/corridor/revproxy"
	"github.com/corridor-enclave/corridor/tapstack"
)

// TestMistakes: each command line must be refused with exactly these complaints,
// found by their beginnings, in any order.
func TestMistakes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		build config.Build
		args  string // split on spaces
		env   []string
		want  []string
	}{
		{name: "no name", want: []string{`--fqdn: missing`}},
		{name: "bad name", args: "--fqdn a..b", want: []string{`--fqdn "a..b": not a host name`}},
		{name: "name with a port", args: "--fqdn a.b:443", want: []string{`--fqdn "a.b:443": not a host name`}},
		{name: "startup on no port", args: "--fqdn a --startup-port 0", want: []string{`--startup-port "0": is outside`}},
		{name: "short key lifetime", args: "--fqdn a --key-lifetime 1h", want: []string{`--key-lifetime "1h": is outside 72h`}},
		{name: "app over TLS", args: "--fqdn a --app https://x", want: []string{`--app "https://x": the app is inside`}},
		{name: "app without a scheme", args: "--fqdn a --app localhost:80", want: []string{`--app "localhost:80": neither`}},
		{name: "app with a path", args: "--fqdn a --app http://x/y", want: []string{`--app "http://x/y": more than`}},
		{name: "app with a bad port", args: "--fqdn a --app http://x:0", want: []string{`--app "http://x:0": port "0"`}},
		{name: "no requests", args: "--fqdn a --max-requests 0", want: []string{`--max-requests "0": is outside 1..`}},
		{name: "words for a number", args: "--fqdn a --max-queue many", want: []string{`--max-queue "many": not a number`}},
		{name: "a negative share", args: "--fqdn a --max-client-requests -1", want: []string{`--max-client-requests "-1": is outside 0..`}},
		{name: "body with a unit", args: "--fqdn a --max-body 1G", want: []string{`--max-body "1G": not a number of bytes`}},
		{name: "no time in the queue", args: "--fqdn a --queue-timeout 0", want: []string{`--queue-timeout "0": is outside`}},
		{name: "timeout without a unit", args: "--fqdn a --request-timeout 30", want: []string{`--request-timeout "30": not a duration`}},
		{name: "served host with a port", args: "--fqdn a --serve-host a:1", want: []string{`--serve-host "a:1": not a host name`}},
		{name: "app on a nameless socket", args: "--fqdn a --app unix:", want: []string{`--app "unix:": the path`}},
		{name: "app socket too long", args: "--fqdn a --app unix:/" + strings.Repeat("x", 107), want: []string{`--app "unix:/xxx`}},
		{name: "unbalanced quote", args: "--fqdn a --app-cmd it's", want: []string{`--app-cmd "it's": cannot be split`}},
		{name: "empty command", args: "--fqdn a --app-cmd=", want: []string{`--app-cmd "": names no command`}},
		{name: "two commands", args: "--fqdn a --app-cmd x -- y", want: []string{`--app-cmd "x": the command behind --`}},
		{name: "no command behind --", args: "--fqdn a --", want: []string{`--app-cmd: nothing follows`}},
		{name: "front on no VSOCK port", args: "--fqdn a --front vsock:4294967295", want: []string{`--front "vsock:4294967295": is outside`}},
		{name: "front on VSOCK twice", args: "--fqdn a --front vsock:1 --front vsock:1", want: []string{`--front "vsock:1": vsock:1 is given twice`}},
		{name: "front of another kind", args: "--fqdn a --front udp::1", want: []string{`--front "udp::1": neither tcp:HOST:PORT nor vsock:PORT`}},
		{name: "stream without an app", args: "--fqdn a --stream 5432", want: []string{`--stream "5432": neither PORT=127.0.0.1:PORT nor`}},
		{name: "stream of no port", args: "--fqdn a --stream 0=127.0.0.1:1", want: []string{`--stream "0=127.0.0.1:1": VSOCK port "0" is outside`}},
		{name: "stream to a name", args: "--fqdn a --stream 1=localhost:1", want: []string{`--stream "1=localhost:1": "localhost" is not an IP address`}},
		{name: "stream out of the enclave", args: "--fqdn a --stream 1=10.0.0.1:1", want: []string{`--stream "1=10.0.0.1:1": the app is inside the same enclave: name a loopback address and its port`}},
		{name: "stream to no port", args: "--fqdn a --stream 1=127.0.0.1:0", want: []string{`--stream "1=127.0.0.1:0": the app is inside the same enclave: name a loopback address and its port`}},
		{name: "stream to no socket", args: "--fqdn a --stream 1=unix:", want: []string{`--stream "1=unix:": the path of a unix socket has`}},
		{name: "stream twice", args: "--fqdn a --stream 1=127.0.0.1:1 --stream 1=127.0.0.1:2", want: []string{`--stream "1=127.0.0.1:2": VSOCK port 1 is taken by tcp:127.0.0.1:1`}},
		{name: "stream on the front's port", args: "--fqdn a --stream 1443=127.0.0.1:1", want: []string{`--stream "1443=127.0.0.1:1": VSOCK port 1443 is taken by the front`}},
		{name: "front on a name", args: "--fqdn a --front tcp:localhost:1", want: []string{`--front "tcp:localhost:1": "localhost" is not an IP`}},
		{name: "front without a port", args: "--fqdn a --front tcp:1.2.3.4", want: []string{`--front "tcp:1.2.3.4": not tcp:HOST:PORT`}},
		{name: "front with a bad port", args: "--fqdn a --front tcp::65536", want: []string{`--front "tcp::65536": port "65536"`}},
		{name: "front twice", args: "--fqdn a --front tcp::1 --front tcp::1", want: []string{`--front "tcp::1": tcp::1 is given twice`}},
		{name: "app API for everybody", args: "--fqdn a --app-api tcp::8080", want: []string{`--app-api "tcp::8080": not a loopback`}},
		{name: "app API off and on", args: "--fqdn a --app-api off --app-api tcp:127.0.0.1:1", want: []string{`--app-api "tcp:127.0.0.1:1": off and an address`}},
		{name: "app API of another kind", args: "--fqdn a --app-api vsock:1", want: []string{`--app-api "vsock:1": neither`}},
		{name: "wait without an API", args: "--fqdn a --app-api off --wait-for-app", want: []string{`--wait-for-app: the app has nowhere`}},
		{name: "link", args: "--fqdn a --link yes", want: []string{`--link "yes": neither "on" nor "off"`}},
		{name: "resolver without a link", args: "--fqdn a --link off --resolv-conf /x", want: []string{`--resolv-conf "/x": without the link`}},
		{name: "wildcard CID", args: "--fqdn a --parent-cid 4294967295", want: []string{`--parent-cid "4294967295": is outside`}},
		{name: "port of 2^32", args: "--fqdn a --link-port 4294967296", want: []string{`--link-port "4294967296": is outside`}},
		{name: "device name", args: "--fqdn a --tap-name tap%d", want: []string{`--tap-name "tap%d": not a device name`}},
		{name: "small MTU", args: "--fqdn a --mtu 575", want: []string{`--mtu "575": is outside 576..65521`}},
		{name: "large MTU", args: "--fqdn a --mtu 65522", want: []string{`--mtu "65522": is outside 576..65521`}},
		{name: "framing", args: "--fqdn a --link-framing gvproxy", want: []string{`--link-framing "gvproxy": neither auto nor plain`}},
		{name: "offload", args: "--fqdn a --offload auto", want: []string{`--offload "auto": neither`}},
		{name: "streams", args: "--fqdn a --vsock-write-max 31K --lanes 0", want: []string{`--vsock-write-max "31K": not auto, off, or`, `--lanes "0": "0" is outside 1 to 8`}},
		{name: "group MAC", args: "--fqdn a --mac 01:00:00:00:00:01", want: []string{`--mac "01:00:00:00:00:01": is a group`}},
		{name: "gateway's MAC", args: "--fqdn a --mac 5a:94:ef:e4:0c:dd", want: []string{`--mac "5a:94:ef:e4:0c:dd": is the gateway's`}},
		{name: "long MAC", args: "--fqdn a --mac 02:00:00:00:00:00:00:01", want: []string{`--mac "02:00:00:00:00:00:00:01": not an address`}},
		{name: "no time", args: "--fqdn a --drain-timeout 0s", want: []string{`--drain-timeout "0s": is outside`}},
		{name: "unitless time", args: "--fqdn a --drain-timeout 5", want: []string{`--drain-timeout "5": not a duration`}},
		{name: "telemetry", args: "--fqdn a --telemetry on", want: []string{`--telemetry "on": want off, events or logs`}},
		{name: "telemetry's port", args: "--fqdn a --telemetry-port 0", want: []string{`--telemetry-port "0": is outside`}},
		{name: "level", args: "--fqdn a --log-level loud", want: []string{`--log-level "loud": not one of`}},
		{name: "source is a script", args: "--fqdn a --source-url javascript:alert(1)", want: []string{`--source-url "javascript:alert(1)": not an http`}},
		{name: "from the environment", env: []string{"CORRIDOR_FQDN=a b", "CORRIDOR_MTU=1"},
			want: []string{`CORRIDOR_FQDN="a b": not a host name`, `CORRIDOR_MTU="1": is outside`}},

		{name: "simulated VSOCK in production", args: "--fqdn a --vsock dir:/x", want: []string{`--vsock "dir:/x": this binary knows kernel only`}},
		{name: "simulation in production", args: "--fqdn a --isolate --cid 1 --nsm sim --nsm-seed x --nsm-out x --nsm-debug --nsm-latency 1ms --tls off",
			want: []string{"--isolate: unknown", "--cid: unknown", "--nsm: unknown", "--nsm-seed: unknown", "--nsm-out: unknown", "--nsm-debug: unknown", "--nsm-latency: unknown", "--tls: unknown"}},

		{name: "hybrid", build: config.Simulated, args: "--fqdn a --isolate --vsock hybrid:/x", want: []string{`--vsock "hybrid:/x": is the host's side`}},
		{name: "dir of nothing", build: config.Simulated, args: "--fqdn a --isolate --vsock dir:", want: []string{`--vsock "dir:": neither kernel`}},
		{name: "machine's own network", build: config.Simulated, args: "--fqdn a", want: []string{`--link: would change this machine's own network`}},
		{name: "host's CID", build: config.Simulated, args: "--fqdn a --isolate --cid 3 --vsock dir:/x", want: []string{`--cid "3": is the host's own`}},
		{name: "CID of a kernel", build: config.Simulated, args: "--fqdn a --isolate --cid 7", want: []string{`--cid "7": with --vsock kernel`}},
		{name: "module", build: config.Simulated, args: "--fqdn a --isolate --nsm real", want: []string{`--nsm "real": only sim`}},
		{name: "no name with TLS", build: config.Simulated, args: "--link off", want: []string{`--fqdn: missing`}},

		{name: "all at once", args: "--frond x --mtu 1 --app ftp://x stray --drain-timeout", want: []string{
			`--frond: unknown flag`, `--mtu "1": is outside`, `--app "ftp://x": neither`, `"stray": unexpected argument`,
			`--drain-timeout: needs a value`, `--fqdn: missing`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, help, err := config.Parse(tt.build, strings.Fields(tt.args), tt.env)
			if err == nil || help || !reflect.DeepEqual(c, config.Config{}) {
				t.Fatalf("Parse(%s) = %+v, %v, %v; want a zero Config and an error", tt.args, c, help, err)
			}
			got := strings.Split(err.Error(), "\n")
			for _, want := range tt.want {
				i := slices.IndexFunc(got, func(line string) bool { return strings.HasPrefix(line, want) })
				if i < 0 {
					t.Errorf("no complaint begins with %q in %q", want, got)
					continue
				}
				got = slices.Delete(got, i, i+1)
			}
			if len(got) > 0 {
				t.Errorf("unexpected complaints: %q", got)
			}
		})
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	c, _, err := config.Parse(config.Production, []string{"--fqdn", "Enclave.Example."}, nil)
	want := config.Config{
		FQDN: "enclave.example",
		AppAPI: []config.Endpoint{
			{Network: "unix", Address: "/run/corridor/app.sock"},
			{Network: "tcp", Address: "127.0.0.1:8080"},
		},
		Front: []config.Endpoint{{Network: "tcp", Address: ":443"}, {Network: "vsock", Address: "1443"}},
		Limits: config.Limits{
			Requests: 1024, Queued: 512, QueueTimeout: 500 * time.Millisecond, AnswerTimeout: time.Minute, ForwardTimeout: time.Second, Retries: 1, FastLane: true, Strict: true,
		},
		Secrets: config.Secrets{CredentialsPort: 1028}, KeyLifetime: 720 * time.Hour,
		Link: config.Link{
			On: true, VSOCK: "kernel", Parent: 3, Port: 1024, TAP: "tap0", MTU: 1500,
			MAC: net.HardwareAddr{0xba, 0xaa, 0xad, 0xc0, 0xff, 0xee}, Offload: true, Lanes: defaultLanes(t), WriteMax: 31 << 10,
		},
		ResolvConf:   "/etc/resolv.conf",
		Telemetry:    config.Telemetry{Mode: telemetry.Events, Port: 1026},
		DrainTimeout: 30 * time.Second,
		LogLevel:     slog.LevelInfo,
	}
	if err != nil || !reflect.DeepEqual(c, want) {
		t.Fatalf("Parse = %+v, %v; want %+v", c, err, want)
	}
}

// TestSimulationSparesTheMachine: what the production binary does by default to
// its enclave, a simulation does only to a namespace.
func TestSimulationSparesTheMachine(t *testing.T) {
	t.Parallel()
	tests := []struct {
		args   string
		api    int
		resolv string
	}{
		{args: "--link off --tls off"},
		{args: "--link on --fqdn a"},
		{args: "--link on --fqdn a --resolv-conf /x --app-api unix:/y", api: 1, resolv: "/x"},
		{args: "--isolate --fqdn a", api: 1, resolv: "/etc/resolv.conf"},
		{args: "--isolate --fqdn a --resolv-conf off --app-api off"},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			t.Parallel()
			c, _, err := config.Parse(config.Simulated, strings.Fields(tt.args), nil)
			if err != nil || len(c.AppAPI) != tt.api || c.ResolvConf != tt.resolv {
				t.Fatalf("Parse = %+v, %v; want %d API endpoints and resolv.conf %q", c, err, tt.api, tt.resolv)
			}
		})
	}
}

// TestSimulationSparesTheMachinesVSOCK: streams are taken by default only where
// VSOCK is simulated too.
func TestSimulationSparesTheMachinesVSOCK(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"--fqdn a --link off":                                   "[tcp::443]",
		"--fqdn a --isolate --vsock dir:/x":                     "[tcp::443 vsock:1443]",
		"--fqdn a --link off --vsock dir:/x --front tcp::1":     "[tcp::1]",
		"--fqdn a --link off --front vsock:1443 --parent-cid 1": "[vsock:1443]",
	} {
		c, _, err := config.Parse(config.Simulated, strings.Fields(args), nil)
		if got := fmt.Sprint(c.Front); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", args, got, err, want)
		}
	}
}

func TestValues(t *testing.T) {
	t.Parallel()
	base := "--fqdn a --link off --app-api off "
	tests := []struct {
		name string
		args []string
		env  []string
		got  func(config.Config) any
		want any
	}{
		{name: "command line is quoted", args: []string{"--app-cmd", `sh -c 'echo "$HOME" | cat' ''`},
			got: func(c config.Config) any { return c.AppArgv }, want: []string{"sh", "-c", `echo "$HOME" | cat`, ""}},
		{name: "command behind --", args: []string{"--", "app", "--fqdn", "b c"},
			got: func(c config.Config) any { return c.AppArgv }, want: []string{"app", "--fqdn", "b c"}},
		{name: "app without a port", args: []string{"--app", "http://127.0.0.1/"},
			got: func(c config.Config) any { return *c.Apps[0] }, want: url.URL{Scheme: "http", Host: "127.0.0.1"}},
		{name: "app on a socket", args: []string{"--app", "unix:/run/a b"},
			got: func(c config.Config) any { return *c.Apps[0] }, want: url.URL{Scheme: "unix", Path: "/run/a b"}},
		{name: "apps", args: []string{"--app", "h2c://a:1", "--app", "http://b"},
			got: func(c config.Config) any { return c.Apps }, want: []*url.URL{{Scheme: "h2c", Host: "a:1"}, {Scheme: "http", Host: "b"}}},
		{name: "limits", args: strings.Fields("--serve-host A. --serve-host 10.0.0.1 --max-requests 1 --max-queue 2 --max-client-requests 3 --max-body 4 " +
			"--queue-timeout 5s --answer-timeout 6s --request-timeout 7s --forward-timeout 8s --fast-lane off --http2 stock --max-app-requests 9 --app-conns 10 --retries 11 --strict-http off --max-connections 12 --app-health /well?x --forward-fields forwarded,x-request-id"),
			got: func(c config.Config) any { return c.Limits }, want: config.Limits{
				Hosts: []string{"a", "10.0.0.1"}, Requests: 1, Queued: 2, PerClient: 3, Body: 4,
				QueueTimeout: 5 * time.Second, AnswerTimeout: 6 * time.Second, RequestTimeout: 7 * time.Second, ForwardTimeout: 8 * time.Second,
				PerApp: 9, Conns: 10, Connections: 12, Retries: 11, Health: "/well?x", StockHTTP2: true,
				Untold: revproxy.AllFields &^ (revproxy.Forwarded | revproxy.RequestID)}},
		{name: "non-idempotent", args: []string{"--nonidempotent", "GET /pay", "--nonidempotent", "* /"},
			got: func(c config.Config) any { return c.Limits.NonIdempotent }, want: []revproxy.Rule{{Method: "GET", Path: "/pay"}, {Path: "/"}}},
		{name: "fronts", args: []string{"--front", "tcp:[::1]:0", "--front", "tcp:127.0.0.1:0", "--front", "tcp:127.0.0.1:0"},
			got: func(c config.Config) any { return c.Front }, want: []config.Endpoint{
				{Network: "tcp", Address: "[::1]:0"}, {Network: "tcp", Address: "127.0.0.1:0"}, {Network: "tcp", Address: "127.0.0.1:0"}}},
		{name: "both roads", got: func(c config.Config) any { return c.Front },
			want: []config.Endpoint{{Network: "tcp", Address: ":443"}, {Network: "vsock", Address: "1443"}}},
		{name: "streams alone", args: []string{"--front", "vsock:007"}, got: func(c config.Config) any { return c.Front },
			want: []config.Endpoint{{Network: "vsock", Address: "7"}}},
		{name: "apps that are no HTTP servers", args: []string{"--stream", "5432=127.0.0.1:5432", "--stream", "6=unix:/run/a"},
			got: func(c config.Config) any { return c.Streams }, want: []config.Forward{
				{Port: 5432, App: config.Endpoint{Network: "tcp", Address: "127.0.0.1:5432"}},
				{Port: 6, App: config.Endpoint{Network: "unix", Address: "/run/a"}}}},
		{name: "fronts from the environment", env: []string{"CORRIDOR_FRONT=tcp::1,tcp::2"},
			got:  func(c config.Config) any { return c.Front },
			want: []config.Endpoint{{Network: "tcp", Address: ":1"}, {Network: "tcp", Address: ":2"}}},
		{name: "configuration at start", args: []string{"--startup-port", "1027"},
			got: func(c config.Config) any { return c.StartupPort }, want: uint32(1027)},
		{name: "one key", args: []string{"--key-lifetime", "0"},
			got: func(c config.Config) any { return c.KeyLifetime }, want: time.Duration(0)},
		{name: "IP address as name", args: []string{"--fqdn=10.0.0.1"},
			got: func(c config.Config) any { return c.FQDN }, want: "10.0.0.1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, _, err := config.Parse(config.Production, append(strings.Fields(base), tt.args...), tt.env)
			if err != nil || !reflect.DeepEqual(tt.got(c), tt.want) {
				t.Fatalf("Parse: got %#v, %v; want %#v", tt.got(c), err, tt.want)
			}
		})
	}
}

// TestNitridingAliases: both command lines must mean the same.
func TestNitridingAliases(t *testing.T) {
	t.Parallel()
	tests := []struct {
		theirs, ours []string
	}{
		{theirs: []string{"-fqdn", "a"}, ours: []string{"--fqdn", "a"}},
		{theirs: []string{"-fqdn", "a", "-wait-for-app"}, ours: []string{"--fqdn", "a", "--wait-for-app=on"}},
		{theirs: []string{"-fqdn", "a", "-appwebsrv", "http://127.0.0.1:80"}, ours: []string{"--fqdn", "a", "--app", "http://127.0.0.1:80"}},
		{theirs: []string{"-fqdn", "a", "-appcmd", `x 'y z'  w`}, ours: []string{"--fqdn", "a", "--", "x", "'y", "z'", "", "w"}},
		{theirs: []string{"-fqdn", "a", "-appurl", "https://example.org/src"}, ours: []string{"--fqdn", "a", "--source-url", "https://example.org/src"}},
		{theirs: []string{"-fqdn", "a", "-ext-pub-port=8443"}, ours: []string{"--fqdn", "a", "--front", "tcp::8443"}},
		{theirs: []string{"-fqdn", "a", "-intport", "9"}, ours: []string{"--fqdn", "a", "--app-api", "tcp:127.0.0.1:9"}},
		{theirs: []string{"-fqdn", "a", "-host-proxy-port", "7"}, ours: []string{"--fqdn", "a", "--link-port", "7"}},
	}
	for _, tt := range tests {
		t.Run(strings.Join(tt.theirs, " "), func(t *testing.T) {
			t.Parallel()
			got, _, err := config.Parse(config.Production, tt.theirs, nil)
			want, _, wantErr := config.Parse(config.Production, tt.ours, nil)
			if err != nil || wantErr != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("Parse(%q) = %+v, %v; Parse(%q) = %+v, %v", tt.theirs, got, err, tt.ours, want, wantErr)
			}
		})
	}
}

func TestFileIsTheWeakest(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "enclave.toml")
	text := "fqdn = \"file\"\nmtu = 1400\nfront = [\"tcp::1\", \"tcp::2\"]\nlink = \"off\"\nwait-for-app = true\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, _, err := config.Parse(config.Production, []string{"--config", file, "--front", "tcp::3"}, []string{"CORRIDOR_FQDN=env"})
	if err != nil || c.FQDN != "env" || c.Link.MTU != 1400 || c.Link.On || !c.WaitForApp || len(c.Front) != 1 {
		t.Fatalf("Parse = %+v, %v", c, err)
	}
}

func TestHelpNamesEverySetting(t *testing.T) {
	t.Parallel()
	if _, help, err := config.Parse(config.Production, []string{"--mtu", "1", "--help"}, nil); !help || err != nil {
		t.Fatalf("Parse(--help) = %v, %v; want help", help, err)
	}
	for build, want := range map[config.Build][]string{
		config.Production: {"usage: enclave --fqdn", "--front", "--app-cmd", "--drain-timeout", "(default 30s)"},
		config.Simulated:  {"usage: enclave-sim --fqdn", "--isolate", "--nsm-seed", "--tls"},
	} {
		var b bytes.Buffer
		if err := config.WriteUsage(&b, build); err != nil {
			t.Fatal(err)
		}
		for _, w := range want {
			if !strings.Contains(b.String(), w) {
				t.Errorf("%s: help does not contain %q:\n%s", build.Program(), w, b.String())
			}
		}
		if build == config.Production && strings.Contains(b.String(), "isolate") {
			t.Errorf("production help speaks of simulation:\n%s", b.String())
		}
	}
}

// FuzzParse: whatever is typed gives a Config that holds its promises, or an
// error that says something, and never a panic.
func FuzzParse(f *testing.F) {
	f.Add("--fqdn", "a", "--front", "tcp::1")
	f.Add("-appcmd", `a "b`, "--app", "unix:x")
	f.Add("--app", "http://[::1]:80", "--", "x")
	f.Fuzz(func(t *testing.T, a, b, c, d string) {
		for _, build := range []config.Build{config.Production, config.Simulated} {
			if strings.Contains(a+"\n"+b+"\n"+c+"\n"+d, "config") {
				return // would read files
			}
			got, help, err := config.Parse(build, []string{a, b, c, d}, nil)
			if help || err != nil {
				continue
			}
			if len(got.Front) == 0 || (got.FQDN == "" && !got.Simulation.PlainHTTP) {
				t.Fatalf("Parse accepted an impossible Config: %+v", got)
			}
			if build == config.Production && (got.Link.VSOCK != "kernel" || got.Simulation != config.Simulation{}) {
				t.Fatalf("production was weakened: %+v", got)
			}
		}
	})
}

// TestModuleLatency: the simulated module answers at once unless it is told to
// take its time.
func TestModuleLatency(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]time.Duration{"--tls off --link off": 0, "--tls off --link off --nsm-latency 1.1ms": 1100 * time.Microsecond} {
		c, _, err := config.Parse(config.Simulated, strings.Fields(args), nil)
		if err != nil || c.Simulation.NSMLatency != want {
			t.Errorf("%s: %v, %v; want %v", args, c.Simulation.NSMLatency, err, want)
		}
	}
}

// TestTelemetryOfASimulation: the machine's own VSOCK is left alone unless asked.
func TestTelemetryOfASimulation(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]telemetry.Mode{
		"--link off":                                telemetry.Off,
		"--link off --telemetry logs":               telemetry.Logs,
		"--link off --vsock dir:/x":                 telemetry.Events,
		"--link off --vsock dir:/x --telemetry off": telemetry.Off,
	} {
		c, _, err := config.Parse(config.Simulated, strings.Fields("--fqdn a "+args), nil)
		if err != nil || c.Telemetry.Mode != want {
			t.Errorf("%s: %v, %v; want %v", args, c.Telemetry.Mode, err, want)
		}
	}
}

// defaultLanes depends on the machine.
func defaultLanes(t *testing.T) int {
	t.Helper()
	n, err := tapstack.ParseLanes("auto")
	if err != nil {
		t.Fatal(err)
	}
	return n
}
