package config_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/host/config"
	"github.com/corridor-enclave/corridor/host/publish"
)

func TestEveryMistakeIsNamed(t *testing.T) {
	t.Parallel()
	args := []string{
		"--vsock", "tcp:1", "--link-port", "0", "--publish", "127.0.0.1:1=stream:0", "--publish", "x",
		"--control", "udp:x", "--mtu", "65522", "--credentials-port", "0", "--metadata-service", "https://x", "--peer", "gvproxy", "--vsock-write-max", "1", "--lanes", "9", "--egress-allow", "exa mple.com", "--egress-deny", "10.0.0.1/8", "--dns", "resolver", "--host-loopback", "maybe", "--ipv6", "yes", "--link-api", "1",
		"--stream-ready", "65", "--idle-timeout", "1ms", "--max-connections", "0", "--max-connections-per-port", "x", "--max-connections-per-client", "-1", "--max-waiting", "1048577",
		"--grace", "-1s", "--drain-timeout", "0s", "--log-level", "loud", "--nope", "surplus",
	}
	_, _, err := config.Load(args, nil)
	if err == nil {
		t.Fatal("all mistakes pass")
	}
	for _, want := range []string{
		`--vsock "tcp:1"`, `--link-port "0"`, `--publish "127.0.0.1:1=stream:0"`, "not a port of the enclave", `--publish "x"`,
		`--control "udp:x"`, `--credentials-port "0"`, `--metadata-service "https://x": not of the form`, `--mtu "65522": want 576 to 65521`, `--peer "gvproxy": want stock`, `--vsock-write-max "1"`, `--lanes "9": "9" is outside 1 to 8`, `--egress-allow "exa mple.com"`, `--egress-deny "10.0.0.1/8"`, `--dns "resolver"`, `--host-loopback "maybe"`, `--ipv6 "yes": want auto, on or off`, `--link-api "1"`,
		`--stream-ready "65": want 0 to 64`, `--idle-timeout "1ms": want a duration`, `--max-connections "0"`, `--max-connections-per-port "x"`, `--max-connections-per-client "-1"`, `--max-waiting "1048577"`,
		`--grace "-1s"`, `--drain-timeout "0s"`, `--log-level "loud"`, "--nope",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the mistakes do not name %s:\n%v", want, err)
		}
	}
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"an argument", []string{"up"}, `"up": unexpected argument`},
		{"an argument behind --", []string{"--", "up"}, `"up": unexpected argument`},
		{"a port twice", []string{"--publish", ":443=link:443", "--publish", ":443=link:444"}, ":443 is published twice"},
		{"a route without a port", []string{"--route", ":443/a.example@16"}, "no port :443 is published"},
		{"a route twice", []string{"--publish", ":443=stream:1", "--route", ":443/A.example@16", "--route", ":443/a.example@17"}, ":443/a.example has two routes"},
		{"a route without enclaves", []string{"--publish", ":443=stream:1", "--route", ":443/a.example"}, "ADDR/NAME@CID"},
		{"a route without a name", []string{"--publish", ":443=stream:1", "--route", ":443/@16"}, "not a name"},
		{"a drained enclave", []string{"--drain", "x"}, "not the CID"},
		{"a health check", []string{"--health-check", "tcp:1"}, "want https:PORT"},
		{"a health check's port", []string{"--health-check", "http:0"}, "not a VSOCK port"},
		{"an interval", []string{"--health-interval", "1ms"}, "want a duration from 100ms"},
		{"a rise", []string{"--health-rise", "0"}, "want 1 to 100"},
		{"a fall", []string{"--health-fall", "101"}, "want 1 to 100"},
		{"a slow start", []string{"--slow-start", "0s"}, "not a duration above zero"},
		{"the largest VSOCK port", []string{"--link-port", "4294967295"}, "not a VSOCK port"},
		{"a control address without a port", []string{"--control", "tcp:127.0.0.1"}, "HOST:PORT"},
		{"a control socket without a name", []string{"--control", "unix:"}, "want unix:PATH"},
		{"an MTU that is too small", []string{"--mtu", "575"}, "want 576"},
		{"a file that is not there", []string{"--config", "/does/not/exist"}, "no such file"},
	} {
		if c, _, err := config.Load(tt.args, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %+v, %v; want %q", tt.name, c, err, tt.want)
		}
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		environ []string
		control string
	}{
		{nil, "unix:/run/corridor/control.sock"},
		{[]string{"XDG_RUNTIME_DIR="}, "unix:/run/corridor/control.sock"},
		{[]string{"XDG_RUNTIME_DIR=/run/user/1000"}, "unix:/run/user/1000/corridor/control.sock"},
	} {
		c, help, err := config.Load(nil, tt.environ)
		if err != nil || help != "" {
			t.Fatalf("%q, %v", help, err)
		}
		if c.Control != tt.control {
			t.Errorf("control %q, want %q", c.Control, tt.control)
		}
		if c.Transport.String() != "kernel" || c.LinkPort != 1024 || c.MTU != 1500 || c.WriteMax != 31744 || c.LargeFrames || c.HostLoopback || c.LinkAPI ||
			c.Grace != 45*time.Second || c.DrainTimeout != 30*time.Second || c.LogLevel != slog.LevelInfo || len(c.DNS) > 0 || len(c.Publish) > 0 ||
			c.Published != (config.Published{IdleTimeout: time.Hour, Ready: 8, Limits: publish.Limits{Total: 32768, PerPort: 16384, PerClient: 16384, Dials: 1024}}) {
			t.Errorf("defaults: %+v", c)
		}
	}
}

func TestAllThreeSources(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "host.toml")
	text := "publish = [\"127.0.0.1:0=link:443\", \"127.0.0.1:0=link:80\"]\nmtu = 1400\nhost-loopback = \"on\"\ngrace = \"5s\"\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, _, err := config.Load(
		[]string{"--config", file, "--mtu", "1300", "--control", "off", "--idle-timeout", "off", "--stream-ready", "0"},
		[]string{"CORRIDOR_MTU=1350", "CORRIDOR_DNS=192.0.2.1,[2001:db8::1]:5353", "CORRIDOR_VSOCK=dir:/run/x"})
	if err != nil {
		t.Fatal(err)
	}
	if c.MTU != 1300 || c.Control != "" || fmt.Sprint(c.DNS) != "[192.0.2.1:53 [2001:db8::1]:5353]" || c.Transport.String() != "dir:/run/x" ||
		!c.HostLoopback || c.Grace != 5*time.Second || len(c.Publish) != 2 || c.Published.IdleTimeout != 0 || c.Published.Ready != 0 {
		t.Errorf("%+v", c)
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	_, help, err := config.Load([]string{"--mtu", "x", "--help"}, nil)
	if err != nil || !strings.Contains(help, "--publish ADDR=stream:PORT[@CID,...]") {
		t.Errorf("%q, %v", help, err)
	}
}
