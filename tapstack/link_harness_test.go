package tapstack_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

// A rig is a running Link between an app's device and a host made by the test.
type rig struct {
	t       *testing.T
	app     *tapstacktest.Device // what the kernel is to a TAP: the other end
	link    *tapstack.Link
	streams chan net.Conn // the host's ends of the streams, in order
	log     *logText
	stop    context.CancelFunc
	ran     chan error // what Run returned
}

// newRig runs a Link. change, if not nil, changes its configuration first. The
// Link is stopped and checked at the end of the test.
func newRig(t *testing.T, change func(*rig, *tapstack.LinkConfig)) *rig {
	t.Helper()
	app, device := tapstacktest.Pipe(tapstack.DefaultMTU)
	r := &rig{t: t, app: app, streams: make(chan net.Conn), log: &logText{}, ran: make(chan error, 1)}
	config := tapstack.LinkConfig{Device: device, Dial: r.dial, Plain: true, Log: slog.New(slog.NewTextHandler(r.log, nil))}
	if change != nil {
		change(r, &config)
	}
	link, err := tapstack.NewLink(config)
	if err != nil {
		t.Fatal(err)
	}
	r.link = link
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	go func() { r.ran <- link.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-r.ran; err != nil {
			t.Errorf("Run = %v, want nil when asked to stop", err)
		}
		r.ran <- nil
		select {
		case <-device.Closed():
		default:
			t.Error("Run returned and left its device open")
		}
	})
	return r
}

func (r *rig) dial(ctx context.Context) (net.Conn, error) {
	enclave, host := net.Pipe()
	select {
	case r.streams <- host:
		return enclave, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// accept takes the next stream and reads its request.
func (r *rig) accept() *hostStream {
	r.t.Helper()
	h := &hostStream{t: r.t, Conn: <-r.streams}
	r.t.Cleanup(func() { h.Close() })
	want := vector(r.t, "connect-request.hex")
	got := make([]byte, len(want))
	if _, err := io.ReadFull(h, got); err != nil || !bytes.Equal(got, want) {
		r.t.Fatalf("request is %q, %v; want %q", got, err, want)
	}
	h.frames = tapstack.NewFrameReader(h, tapstack.Plain, tapstack.MaxFrame)
	return h
}

// acceptUp takes the next stream, answers its probe and waits until it is up.
func (r *rig) acceptUp() *hostStream {
	r.t.Helper()
	h := r.accept()
	if got, want := h.read(), vector(r.t, "arp-probe.hex")[2:]; !bytes.Equal(got, want) {
		r.t.Fatalf("first frame is % x, want the probe", got)
	}
	before := r.link.Status().Connects
	h.raw(vector(r.t, "arp-reply.hex"))
	r.await("the link is up", func(s tapstack.LinkStatus) bool { return s.Connects > before })
	return h
}

// await polls the status; the clock is that of the bubble.
func (r *rig) await(what string, ok func(tapstack.LinkStatus) bool) {
	r.t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok(r.link.Status()) {
		select {
		case <-tick.C:
		case <-deadline:
			r.t.Fatalf("waited a minute until %s; status is %+v; log:\n%s", what, r.link.Status(), r.log)
		}
	}
}

// sendUp writes a frame to the app's device.
func (r *rig) sendUp(frame []byte) {
	r.t.Helper()
	if err := r.app.WriteFrame(plain(frame)); err != nil {
		r.t.Fatal(err)
	}
}

// readDown reads a frame from the app's device.
func (r *rig) readDown() []byte {
	r.t.Helper()
	buf := make([]byte, tapstack.MaxFrame)
	n, err := r.app.ReadFrame(buf)
	if err != nil {
		r.t.Fatal(err)
	}
	return buf[tapstack.OffloadHeader:n]
}

// A hostStream is the host's end of one stream.
type hostStream struct {
	t *testing.T
	net.Conn
	frames *tapstack.FrameReader
}

func (h *hostStream) read() []byte {
	h.t.Helper()
	buf := make([]byte, tapstack.MaxFrame)
	n, err := readInto(h.frames, buf)
	if err != nil {
		h.t.Fatalf("host reads a frame: %v", err)
	}
	return buf[:n]
}

func (h *hostStream) raw(b []byte) {
	h.t.Helper()
	if _, err := h.Write(b); err != nil {
		h.t.Fatalf("host writes: %v", err)
	}
}

func (h *hostStream) send(frame []byte) {
	h.t.Helper()
	h.raw(tapstack.AppendFrame(nil, frame))
}

// awaitEnd reads until the enclave closes the stream.
func (h *hostStream) awaitEnd() {
	h.t.Helper()
	if _, err := io.Copy(io.Discard, h); err != nil && !errors.Is(err, io.ErrClosedPipe) {
		h.t.Errorf("end of the stream: %v", err)
	}
}

// frameOf returns an IPv4 frame with the given text in it.
func frameOf(text string) []byte {
	packet := tapstacktest.IPv4(tapstacktest.ProtocolUDP, tapstack.EnclaveAddr(), tapstack.GatewayAddr(), []byte(text))
	return tapstacktest.Ethernet(tapstack.GatewayMAC(), tapstack.EnclaveMAC(), tapstacktest.EtherTypeIPv4, packet)
}

// logText is a log that tests read.
type logText struct{ tapstacktest.Log }

// count returns how many lines contain part.
func (l *logText) count(part string) (n int) {
	for line := range strings.Lines(l.String()) {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}
