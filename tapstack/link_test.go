package tapstack_test

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

func TestNewLinkNamesEveryMistake(t *testing.T) {
	t.Parallel()
	_, narrow := tapstacktest.Pipe(0)
	_, wide := tapstacktest.Pipe(tapstack.MaxFrame)
	tests := []struct {
		name   string
		config tapstack.LinkConfig
		want   []string
	}{
		{name: "nothing given", want: []string{"no Dial", "no Log", "no Device"}},
		{name: "IPv6", config: tapstack.LinkConfig{Addr: netip.IPv6Loopback()}, want: []string{"::1", "IPv4"}},
		{name: "MAC of another kind", config: tapstack.LinkConfig{MAC: make(net.HardwareAddr, 8)}, want: []string{"8 bytes"}},
		{name: "no MTU", config: tapstack.LinkConfig{Device: narrow}, want: []string{"MTU 0"}},
		{name: "MTU above the length field", config: tapstack.LinkConfig{Device: wide}, want: []string{"MTU 65535 is outside 1 to 65521"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := tapstack.NewLink(tt.config)
			for _, want := range tt.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("NewLink = %v, want %q in it", err, want)
				}
			}
		})
	}
}

func TestLinkOpens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.sendUp(frameOf("early")) // must wait for the proof
		h := r.accept()
		asked := time.Now()

		// A reply to no question proves nothing, and is a frame like others.
		reply := vector(t, "arp-reply.hex")
		h.raw(reply)
		if got := r.readDown(); !bytes.Equal(got, reply[2:]) {
			t.Errorf("frame before the probe is % x, want the unasked reply", got)
		}
		if got, want := h.read(), vector(t, "arp-probe.hex")[2:]; !bytes.Equal(got, want) {
			t.Fatalf("first frame is % x, want the probe", got)
		}
		if waited := time.Since(asked); waited != 50*time.Millisecond {
			t.Errorf("the probe came %v behind the request, want 50ms", waited)
		}
		h.send(frameOf("while probing"))
		if got := r.readDown(); !bytes.Equal(got, frameOf("while probing")) {
			t.Errorf("frame while probing is % x", got)
		}
		if r.link.Status().Connected {
			t.Error("the link is up before the reply")
		}
		h.raw(reply)
		if got := h.read(); !bytes.Equal(got, frameOf("early")) {
			t.Errorf("frame after the reply is % x, want the one that waited", got)
		}
		h.send(frameOf("answer"))
		if got := r.readDown(); !bytes.Equal(got, frameOf("answer")) {
			t.Errorf("frame after the reply is % x, want the answer and not the reply", got)
		}
		synctest.Wait()
		early, down := len(frameOf("early")), len(reply)-2+len(frameOf("while probing"))+len(frameOf("answer"))
		got := r.link.Status()
		want := tapstack.LinkStatus{
			Connected: true, Since: got.Since, Connects: 1, Writes: 1, Lanes: 1,
			Uplink:   tapstack.Traffic{Frames: 1, Bytes: uint64(early)},
			Downlink: tapstack.Traffic{Frames: 3, Bytes: uint64(down)},
			Sizes:    got.Sizes,
		}
		want.PerLane = []tapstack.LinkLane{{Uplink: want.Uplink, Downlink: want.Downlink}}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("status is %+v, want %+v", got, want)
		}
		if s := got.Sizes; s.Frames.Count() != 1 || s.Bytes.Sum != uint64(early) || s.Reads.Sum == 0 {
			t.Errorf("sizes are %+v, want one frame that left alone", s)
		}
		if r.log.count("link is up") != 1 || r.log.count("link is down") != 0 {
			t.Errorf("log is\n%s", r.log)
		}
	})
}

// A host that loses bytes behind the request is found out, whether a whole
// probe is lost or a part of one.
func TestLinkFindsLostBytes(t *testing.T) {
	t.Parallel()
	t.Run("a whole probe: the next one is answered", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, nil)
			h := r.accept()
			h.read() // and lose it
			lost := time.Now()
			h.read()
			if waited := time.Since(lost); waited != 500*time.Millisecond {
				t.Errorf("the second probe came after %v, want 500ms", waited)
			}
			h.raw(vector(t, "arp-reply.hex"))
			r.await("the link is up", func(s tapstack.LinkStatus) bool { return s.Connected })
			if got := r.link.Status().Connects; got != 1 {
				t.Errorf("connected %d times, want 1", got)
			}
		})
	})
	t.Run("a part of one: the stream is dropped", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, nil)
			start := time.Now()
			r.accept().awaitEnd() // out of step, it understands nothing
			if took := time.Since(start); took != 50*time.Millisecond+3*500*time.Millisecond {
				t.Errorf("gave the stream up after %v, want 1.55s", took)
			}
			r.acceptUp()
			if r.log.count("does not answer ARP") != 1 {
				t.Errorf("log does not name the reason once:\n%s", r.log)
			}
		})
	})
}

func TestLinkDropsBrokenStreams(t *testing.T) {
	t.Parallel()
	long := tapstack.AppendFrame(nil, make([]byte, tapstack.DefaultMTU+tapstack.MinFrame+1))
	framing := tapstack.LinkLosses{Framing: 1}
	tests := []struct {
		name  string
		bytes []byte
		want  string
		loss  tapstack.LinkLosses // of a link that was up
	}{
		{name: "no length", bytes: []byte{0, 0}, want: "0 bytes, allowed are 14 to 1514", loss: framing},
		{name: "shorter than an Ethernet header", bytes: []byte{13, 0}, want: "13 bytes, allowed are 14 to 1514", loss: framing},
		{name: "longer than the device takes", bytes: long[:2], want: "1515 bytes, allowed are 14 to 1514", loss: framing},
		{name: "an answer in HTTP", bytes: []byte("HT"), want: "the host answered in HTTP", loss: framing},
		{name: "the end", bytes: nil, want: "the host closed the link", loss: tapstack.LinkLosses{Closed: 1}},
		{name: "the end inside a frame", bytes: []byte{14, 0, 1}, want: "unexpected EOF", loss: tapstack.LinkLosses{Cut: 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, up := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t, nil)
					accept := r.accept
					if up {
						accept = r.acceptUp
					}
					h := accept()
					synctest.Wait() // the request is not only read, but known to be written
					if len(tt.bytes) > 0 {
						h.raw(tt.bytes)
					}
					if len(tt.bytes) < 2 || tt.bytes[0] == tapstack.MinFrame {
						h.Close()
					}
					r.await("the loss is known", func(s tapstack.LinkStatus) bool { return s.LastError != "" })
					if got := r.link.Status(); !strings.Contains(got.LastError, tt.want) || got.Connected {
						t.Errorf("up %t: status is %+v, want %q in its error", up, got, tt.want)
					}
					r.acceptUp()
					r.sendUp(frameOf("again"))
					got, failures, losses := r.link.Status(), uint64(1), tapstack.LinkLosses{}
					if up {
						failures, losses = 0, tt.loss
					}
					if got.Failures != failures || got.Losses != losses {
						t.Errorf("up %t: %d failures, losses %+v; want %d, %+v", up, got.Failures, got.Losses, failures, losses)
					}
				})
			}
		})
	}
}

// The device and what waits in it outlive the stream.
func TestLinkKeepsFramesOverALoss(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		h := r.acceptUp()
		r.sendUp(frameOf("before"))
		h.read()
		h.Close()
		r.await("the link is down", func(s tapstack.LinkStatus) bool { return !s.Connected })
		want := []string{"first", "second", "third"}
		for _, text := range want {
			r.sendUp(frameOf(text))
		}
		h = r.acceptUp()
		for _, text := range want {
			if got := h.read(); !bytes.Equal(got, frameOf(text)) {
				t.Errorf("frame after the loss is %q, want %q", got, text)
			}
		}
		if got := r.link.Status(); got.Reconnects != 1 || got.Drops != (tapstack.LinkDrops{}) {
			t.Errorf("status is %+v, want one reconnect and no drop", got)
		}
	})
}

// While there is no stream, the device is not read: its queue holds what it can
// and the kernel sees that it is full.
func TestLinkStopsReadingTheDevice(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		wrote := 0
		full := make(chan struct{})
		go func() {
			defer close(full)
			for ; wrote < 1000; wrote++ {
				if r.app.WriteFrame(plain(frameOf("x"))) != nil {
					return // closed
				}
			}
		}()
		synctest.Wait()
		if wrote != 64 { // what the Pipe holds
			t.Errorf("%d frames left the device without a stream, want 0", wrote-64)
		}
		r.app.Close()
		<-full
	})
}

// A frame that the device refuses concerns nobody else.
func TestLinkCountsRefusedFrames(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(_ *rig, c *tapstack.LinkConfig) { c.Device = refusing{c.Device} })
		h := r.acceptUp()
		h.send(frameOf("refused"))
		h.send(frameOf("taken"))
		if got := r.readDown(); !bytes.Equal(got, frameOf("taken")) {
			t.Errorf("delivered %q, want the frame behind the refused one", got)
		}
		synctest.Wait()
		if got := r.link.Status(); got.Drops.Refused != 1 || got.Downlink.Frames != 1 || !got.Connected {
			t.Errorf("status is %+v, want one drop, one frame, and the link up", got)
		}
	})
}

// A frame that no link can carry is left out, and says why.
func TestLinkCountsWhatItLeavesOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(_ *rig, c *tapstack.LinkConfig) { c.Device = shortening{c.Device} })
		h := r.acceptUp()
		segment := plain(frameOf("a large segment to a machine behind a plain host"))
		segment[0], segment[1] = 1, 1 // an unfinished checksum, TCP over IPv4
		segment[tapstack.OffloadHeader] ^= 0x02
		for _, f := range [][]byte{plain(frameOf("shorten")), segment, plain(frameOf("sent"))} {
			if err := r.app.WriteFrame(f); err != nil {
				t.Fatal(err)
			}
			synctest.Wait() // each is read alone
		}
		if got := h.read(); !bytes.Equal(got, frameOf("sent")) {
			t.Errorf("the host got %q, want the last frame", got)
		}
		synctest.Wait()
		if got := r.link.Status(); got.Drops != (tapstack.LinkDrops{TooShort: 1, Neighbour: 1}) || got.Uplink.Frames != 1 || got.Waiting != 0 {
			t.Errorf("status is %+v, want two drops and one frame", got)
		}
	})
}

// shortening gives, once before all others, a frame that is too short, as no kernel
// does.
type shortening struct{ tapstack.Device }

func (d shortening) ReadFrames(b *tapstack.Batch) error {
	err := d.Device.ReadFrames(b)
	if bytes.Contains(b.Unsent(), []byte("shorten")) {
		b.Reset(tapstack.Plain)
		b.Next()
		b.Commit(tapstack.OffloadHeader + tapstack.MinFrame - 1)
	}
	return err
}

// refusing refuses frames with "refused" in them, as a kernel does with a frame
// that it finds wrong.
type refusing struct{ tapstack.Device }

func (d refusing) WriteFrame(frame []byte) error {
	if bytes.Contains(frame, []byte("refused")) {
		return os.ErrInvalid
	}
	return d.Device.WriteFrame(frame)
}

func TestLinkEndsWithItsDevice(t *testing.T) {
	t.Parallel()
	for _, up := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			app, device := tapstacktest.Pipe(tapstack.DefaultMTU)
			r := &rig{t: t, app: app, streams: make(chan net.Conn), log: &logText{}}
			link, err := tapstack.NewLink(tapstack.LinkConfig{
				Device: device, Dial: r.dial, Plain: true, Log: slog.New(slog.NewTextHandler(r.log, nil)),
			})
			if err != nil {
				t.Fatal(err)
			}
			r.link = link
			ran := make(chan error, 1)
			go func() { ran <- link.Run(t.Context()) }()
			h := r.accept()
			if up {
				h.read()
				h.raw(vector(t, "arp-reply.hex"))
				synctest.Wait()
			}
			if err := device.Close(); err != nil {
				t.Fatal(err)
			}
			if !up { // only a frame from the host touches the device now
				h.send(frameOf("x"))
			}
			if err := <-ran; !errors.Is(err, os.ErrClosed) {
				t.Errorf("up %t: Run = %v, want os.ErrClosed", up, err)
			}
		})
	}
}

// Whatever the Link is doing, it stops at once when asked to: a bubble in which
// a goroutine is left, or time has to pass, shows it.
func TestLinkStopsInEveryState(t *testing.T) {
	t.Parallel()
	states := []struct {
		name  string
		reach func(*rig)
	}{
		{name: "dialing", reach: func(*rig) {}},
		{name: "requesting", reach: func(r *rig) { <-r.streams }},
		{name: "settling", reach: func(r *rig) { r.accept() }},
		{name: "probing", reach: func(r *rig) { r.accept().read() }},
		{name: "up", reach: func(r *rig) { r.acceptUp() }},
		{name: "up and writing to a host that does not read", reach: func(r *rig) { r.acceptUp(); r.sendUp(frameOf("x")) }},
		{name: "waiting", reach: func(r *rig) { r.accept().Close() }},
	}
	for _, tt := range states {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, nil)
				tt.reach(r)
				synctest.Wait()
				asked := time.Now()
				r.stop()
				if err := <-r.ran; err != nil {
					t.Errorf("Run = %v, want nil", err)
				}
				r.ran <- nil // for the end of the rig
				if took := time.Since(asked); took != 0 {
					t.Errorf("stopping took %v, want no time", took)
				}
			})
		})
	}
}
