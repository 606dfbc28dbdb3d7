package tap_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/tap"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

// patience bounds what only a broken kernel or a broken test would wait for.
const patience = 10 * time.Second

// openInPrivate opens the TAP tap0 in a network namespace of the test.
func openInPrivate(t *testing.T) *tap.Device {
	t.Helper()
	tapstacktest.RequireTAP(t)
	tapstacktest.PrivateNetwork(t)
	device, err := tap.Open("tap0", tap.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := device.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
	})
	return device
}

func settings() tap.Settings {
	return tap.Settings{
		Name: "tap0", MAC: tapstack.EnclaveMAC(), MTU: 1400,
		GatewayMAC: tapstack.GatewayMAC(), QueueLength: 200,
	}
}

func configure(t *testing.T, s tap.Settings) {
	t.Helper()
	if err := tap.Configure(s); err != nil {
		t.Fatal(err)
	}
}

func TestIntegrationConfigure(t *testing.T) {
	device := openInPrivate(t)
	if got := device.MTU(); got != 1500 {
		t.Errorf("a fresh device has MTU %d, want 1500", got)
	}
	for range 2 { // it may be repeated
		configure(t, settings())
		if err := tap.LoopbackUp(); err != nil {
			t.Fatal(err)
		}
	}
	if got := device.MTU(); got != 1400 {
		t.Errorf("MTU = %d, want 1400", got)
	}
	link, err := netlink.LinkByName("tap0")
	if err != nil {
		t.Fatal(err)
	}
	attrs := link.Attrs()
	if attrs.Flags&net.FlagUp == 0 || attrs.MTU != 1400 || attrs.TxQLen != 200 || !bytes.Equal(attrs.HardwareAddr, tapstack.EnclaveMAC()) {
		t.Errorf("the device is %+v", attrs)
	}
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil || len(addrs) != 1 || addrs[0].IPNet.String() != "192.168.127.2/24" {
		t.Errorf("addresses are %v, %v; want 192.168.127.2/24 alone", addrs, err)
	}
	routes, err := netlink.RouteGet(net.IPv4(8, 8, 8, 8))
	if err != nil || len(routes) != 1 || routes[0].Gw.String() != "192.168.127.1" || routes[0].LinkIndex != attrs.Index {
		t.Errorf("route to the world is %v, %v; want by 192.168.127.1", routes, err)
	}
	checkCongestionControl(t, netlink.FAMILY_V4, 2)
	neighbours, err := netlink.NeighList(attrs.Index, netlink.FAMILY_V4)
	if err != nil || len(neighbours) != 1 || neighbours[0].State != netlink.NUD_PERMANENT || !bytes.Equal(neighbours[0].HardwareAddr, tapstack.GatewayMAC()) {
		t.Errorf("neighbours are %v, %v; want the gateway for good", neighbours, err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil || lo.Attrs().Flags&net.FlagUp == 0 {
		t.Errorf("lo is %v, %v; want it up", lo, err)
	}
}

// checkCongestionControl fails unless the device has so many routes that lead to
// others, and on all of them TCP does not pace.
func checkCongestionControl(t *testing.T, family, want int) {
	t.Helper()
	link, err := netlink.LinkByName("tap0")
	if err != nil {
		t.Fatal(err)
	}
	routes, err := netlink.RouteList(link, family)
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, r := range routes {
		if r.Dst.IP.IsLinkLocalUnicast() || r.Dst.IP.IsMulticast() {
			continue
		}
		count++
		if r.Congctl != "reno" {
			t.Errorf("the congestion control of route %v is %q, want reno", r, r.Congctl)
		}
	}
	if count != want {
		t.Errorf("%d routes, want %d: %v", count, want, routes)
	}
}

func TestIntegrationIPv6(t *testing.T) {
	openInPrivate(t)
	if !tap.HasIPv6() {
		tapstacktest.Require(t, errors.New("none"), "a kernel with IPv6", "boot without ipv6.disable=1")
	}
	addresses := func() (all []string) {
		t.Helper()
		link, err := netlink.LinkByName("tap0")
		if err != nil {
			t.Fatal(err)
		}
		addrs, err := netlink.AddrList(link, netlink.FAMILY_V6)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			all = append(all, a.IPNet.String())
		}
		return all
	}
	if err := tap.DisableIPv6("tap0"); err != nil {
		t.Fatal(err)
	}
	configure(t, settings())
	if got := addresses(); got != nil {
		t.Errorf("with IPv6 off the device has %v", got)
	}
	for range 2 { // on, on, off: and again
		for range 2 {
			if err := tap.EnableIPv6("tap0", tapstack.GatewayMAC()); err != nil {
				t.Fatal(err)
			}
		}
		if got := addresses(); len(got) != 1 || got[0] != "fd3c:91d2:7ab4::2/64" {
			t.Errorf("addresses are %v, want the enclave's alone", got)
		}
		routes, err := netlink.RouteGet(net.ParseIP("2001:db8::1"))
		if err != nil || len(routes) != 1 || routes[0].Gw.String() != tapstack.GatewayAddr6().String() {
			t.Errorf("route to the world is %v, %v; want by %s", routes, err, tapstack.GatewayAddr6())
		}
		checkCongestionControl(t, netlink.FAMILY_V6, 2)
		for key, want := range map[string]string{"accept_ra": "0\n", "accept_redirects": "0\n", "autoconf": "0\n"} {
			if got, err := os.ReadFile("/proc/sys/net/ipv6/conf/tap0/" + key); err != nil || string(got) != want {
				t.Errorf("%s is %q, %v; want %q", key, got, err, want)
			}
		}
		if err := tap.DisableIPv6("tap0"); err != nil {
			t.Fatal(err)
		}
		if got := addresses(); got != nil {
			t.Errorf("with IPv6 off again the device has %v", got)
		}
	}
	for _, wrong := range []string{"", "../all"} {
		if tap.DisableIPv6(wrong) == nil || tap.EnableIPv6(wrong, nil) == nil {
			t.Errorf("%q passes for a device", wrong)
		}
	}
}

func TestIntegrationConfigureMissingDevice(t *testing.T) {
	tapstacktest.PrivateNetwork(t)
	if err := tap.Configure(settings()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Configure of a missing device = %v, want os.ErrNotExist", err)
	}
}

func TestIntegrationOpenTwice(t *testing.T) {
	device := openInPrivate(t)
	if second, err := tap.Open(device.Name(), tap.Options{}); second != nil || !errors.Is(err, unix.EBUSY) {
		t.Errorf("second Open = %v, %v; want EBUSY", second, err)
	}
}

func TestIntegrationCloseWakesReader(t *testing.T) {
	device := openInPrivate(t)
	read := make(chan error, 1)
	go func() {
		batch := tapstack.NewBatch(tapstack.Plain)
		for {
			batch.Reset(tapstack.Plain)
			if err := device.ReadFrames(batch); err != nil {
				read <- err
				return
			}
		}
	}()
	if err := device.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-read; !errors.Is(err, os.ErrClosed) {
		t.Errorf("ReadFrames at Close = %v, want os.ErrClosed", err)
	}
	if err := device.WriteFrame(make([]byte, tapstack.OffloadHeader+60)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("WriteFrame after Close = %v, want os.ErrClosed", err)
	}
	if got := device.MTU(); got != 1500 {
		t.Errorf("MTU after Close = %d, want the last one known", got)
	}
}

// A frame that the kernel refuses is an error of that frame alone.
func TestIntegrationRefusedFrame(t *testing.T) {
	device := openInPrivate(t)
	configure(t, settings())
	if err := device.WriteFrame(make([]byte, tapstack.OffloadHeader+13)); !errors.Is(err, unix.EINVAL) {
		t.Errorf("WriteFrame of 13 bytes = %v, want EINVAL", err)
	}
	if err := device.WriteFrame(append(make([]byte, tapstack.OffloadHeader), tapstacktest.ARPRequest(tapstack.GatewayMAC(), tapstack.GatewayAddr(), tapstack.EnclaveAddr())...)); err != nil {
		t.Fatalf("WriteFrame behind a refused one = %v", err)
	}
	want := tapstacktest.ARPReply(tapstack.EnclaveMAC(), tapstack.EnclaveAddr(), tapstack.GatewayMAC(), tapstack.GatewayAddr())
	batch := tapstack.NewBatch(tapstack.Plain)
	for !bytes.Contains(batch.Unsent(), want) { // among the kernel's own frames for IPv6
		batch.Reset(tapstack.Plain)
		if err := device.ReadFrames(batch); err != nil {
			t.Fatal(err)
		}
	}
}

// The whole way: the app's datagram leaves by the kernel and the TAP, comes
// back by the link, and the same socket works over the next stream.
func TestIntegrationLinkKeepsSockets(t *testing.T) {
	device := openInPrivate(t)
	configure(t, settings())
	// Opened here, on the thread that is in the namespace.
	app, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(tapstack.GatewayAddr(), 7)))
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()

	streams := make(chan net.Conn)
	link, err := tapstack.NewLink(tapstack.LinkConfig{
		Device: device, Plain: true, Log: slog.New(slog.DiscardHandler),
		Dial: func(ctx context.Context) (net.Conn, error) {
			enclave, host := net.Pipe()
			select {
			case streams <- host:
				return enclave, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- link.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("Run = %v, want nil when asked to stop", err)
		}
	}()
	for _, text := range []string{"first stream", "second stream"} {
		host := <-streams
		served := make(chan error, 1)
		go func() { served <- echo(host) }()
		if err := app.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := app.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		if n, err := app.Read(buf); err != nil || string(buf[:n]) != text {
			t.Errorf("the app got %q, %v; want %q", buf[:n], err, text)
		}
		host.Close()
		if err := <-served; err != nil {
			t.Errorf("host: %v", err)
		}
	}
}

// echo is a host that answers the probe and sends UDP datagrams back. It
// returns nil when the stream is closed.
func echo(host net.Conn) error {
	if _, err := io.CopyN(io.Discard, host, int64(len("POST /connect HTTP/1.1\r\nHost: \r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: 0\r\n\r\n"))); err != nil {
		return err
	}
	frames := tapstack.NewFrameReader(host, tapstack.Plain, tapstack.MaxFrame)
	for {
		frame, err := frames.Next()
		if err != nil {
			return nil // the test closed it
		}
		answer := answerTo(frame[tapstack.OffloadHeader:])
		if answer == nil {
			continue
		}
		if _, err := host.Write(tapstack.AppendFrame(nil, answer)); err != nil {
			return err
		}
	}
}

// answerTo returns what the host sends for a frame, nil for nothing.
func answerTo(frame []byte) []byte {
	const udpPayload = 14 + 20 + 8
	probe := tapstacktest.ARPRequest(tapstack.EnclaveMAC(), tapstack.EnclaveAddr(), tapstack.GatewayAddr())
	if bytes.Equal(frame, probe) {
		return tapstacktest.ARPReply(tapstack.GatewayMAC(), tapstack.GatewayAddr(), tapstack.EnclaveMAC(), tapstack.EnclaveAddr())
	}
	if len(frame) < udpPayload || !bytes.Equal(frame[12:14], []byte{8, 0}) || frame[23] != tapstacktest.ProtocolUDP {
		return nil
	}
	from := netip.AddrPortFrom(tapstack.EnclaveAddr(), uint16(frame[34])<<8|uint16(frame[35]))
	to := netip.AddrPortFrom(tapstack.GatewayAddr(), uint16(frame[36])<<8|uint16(frame[37]))
	udp := tapstacktest.UDP(to, from, frame[udpPayload:])
	packet := tapstacktest.IPv4(tapstacktest.ProtocolUDP, to.Addr(), from.Addr(), udp)
	return tapstacktest.Ethernet(tapstack.EnclaveMAC(), tapstack.GatewayMAC(), tapstacktest.EtherTypeIPv4, packet)
}
