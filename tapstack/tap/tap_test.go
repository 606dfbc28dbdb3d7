package tap_test

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/corridor-enclave/corridor/tapstack/tap"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestOpenRefusesNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "sixteen-bytes-xx", "tap 0", "tap/0", "tap:0", "tap%d", "tap\x00", "täp"} {
		if d, err := tap.Open(name, tap.Options{}); d != nil || err == nil || !strings.Contains(err.Error(), "tap: open: device name") {
			t.Errorf("Open(%q) = %v, %v; want an error about the name", name, d, err)
		}
	}
}

func TestOpenRefusesQueues(t *testing.T) {
	t.Parallel()
	for _, n := range []int{-1, 9} {
		if d, err := tap.Open("tap0", tap.Options{Queues: n}); d != nil || err == nil || !strings.Contains(err.Error(), "queues, the most are 8") {
			t.Errorf("Open with %d queues = %v, %v; want an error about their number", n, d, err)
		}
	}
}

func TestConfigureNamesEveryMistake(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		settings tap.Settings
		want     []string
	}{
		{name: "no name", settings: tap.Settings{}, want: []string{`device name ""`}},
		{name: "MTU too small", settings: tap.Settings{MTU: 67}, want: []string{"MTU 67 is outside 68 to 65521"}},
		{name: "MTU too large", settings: tap.Settings{MTU: 65522}, want: []string{"MTU 65522"}},
		{name: "IPv6", settings: tap.Settings{Addr: netip.MustParsePrefix("fd00::2/64")}, want: []string{"must be IPv4"}},
		{name: "gateway elsewhere", settings: tap.Settings{Gateway: netip.MustParseAddr("10.0.0.1")}, want: []string{"gateway 10.0.0.1 is not another address of 192.168.127.0/24"}},
		{name: "gateway is the enclave", settings: tap.Settings{Gateway: netip.MustParseAddr("192.168.127.2")}, want: []string{"gateway 192.168.127.2"}},
		{
			name: "several",
			settings: tap.Settings{
				Name: "a/b", MAC: make(net.HardwareAddr, 8), GatewayMAC: net.HardwareAddr{1, 0, 0, 0, 0, 0}, QueueLength: -1,
			},
			want: []string{`"a/b"`, "has 8 bytes", "01:00:00:00:00:00 is a group's", "queue length -1"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := tap.Configure(tt.settings)
			for _, want := range tt.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("Configure = %v, want %q in it", err, want)
				}
			}
		})
	}
}
