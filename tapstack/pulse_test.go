package tapstack_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corridor-enclave/corridor/tapstack"
)

// A watched stream is one end of a pipe with a Pulse that runs.
type watched struct {
	pulse *tapstack.Pulse
	ended chan error // why it ended
}

// watch runs a Pulse over conn, until ctx ends or the Pulse ends the stream. It
// reads the stream too.
func watch(ctx context.Context, conn net.Conn, answers bool) *watched {
	w := &watched{pulse: tapstack.NewPulse(0), ended: make(chan error, 3)}
	end := func(err error) {
		w.ended <- err
		conn.Close()
	}
	write := func(b []byte) error {
		_, err := conn.Write(b)
		return err
	}
	go w.pulse.Run(ctx, answers, write, end)
	go func() {
		frames := tapstack.NewFrameReader(conn, tapstack.Extended, tapstack.MaxFrame)
		frames.OnControl(w.pulse.Control)
		for {
			if _, err := frames.Next(); err != nil {
				return
			}
			w.pulse.Heard()
		}
	}()
	return w
}

func TestPulseOfAPeerThatIsGone(t *testing.T) {
	t.Parallel()
	for name, reads := range map[string]bool{"it takes what is sent": true, "it takes nothing": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				here, there := net.Pipe()
				ctx, cancel := context.WithCancel(t.Context())
				var sent bytes.Buffer
				if reads {
					go io.Copy(&sent, there)
				}
				start := time.Now()
				w := watch(ctx, here, true)
				err := <-w.ended
				if took := time.Since(start); !errors.Is(err, tapstack.ErrSilent) || took < 12*time.Second || took > 16*time.Second {
					t.Errorf("after %v the stream ended: %v; want ErrSilent after 12 to 16 s", took, err)
				}
				cancel()
				synctest.Wait()
				ping := vector(t, "control-ping.hex")
				if n := sent.Len() / len(ping); reads && (n < 2 || !bytes.HasPrefix(sent.Bytes(), ping)) {
					t.Errorf("sent % x, want two pings or more", sent.Bytes())
				}
				there.Close()
			})
		})
	}
}

// TestPulseOfLivingPeers: idle streams live for ever, whatever one end knows of
// pings.
func TestPulseOfLivingPeers(t *testing.T) {
	t.Parallel()
	for name, both := range map[string]bool{"both ask": true, "one asks": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				here, there := net.Pipe()
				ctx, cancel := context.WithCancel(t.Context())
				a, b := watch(ctx, here, true), watch(ctx, there, both)
				select {
				case err := <-a.ended:
					t.Errorf("a living peer is taken for gone: %v", err)
				case err := <-b.ended:
					t.Errorf("a living peer is taken for gone: %v", err)
				case <-time.After(time.Hour):
				}
				cancel()
				here.Close()
				there.Close()
			})
		})
	}
}

// TestPulseTakesFramesForLife: a peer that does not answer, but sends.
func TestPulseTakesFramesForLife(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		go io.Copy(io.Discard, there)
		w := watch(ctx, here, true)
		for range 20 {
			<-time.After(7 * time.Second)
			if _, err := there.Write(vector(t, "extended-frames.hex")); err != nil {
				t.Fatalf("the stream ended: %v", err)
			}
		}
		cancel()
		select {
		case err := <-w.ended:
			t.Errorf("the stream ended: %v", err)
		default:
		}
		here.Close()
		there.Close()
	})
}

// TestPulseAnswers: the answer has the token of the ping; what is not known, or
// has another length, is passed over.
func TestPulseAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		watch(ctx, here, false)
		want := vector(t, "control-answer.hex")
		for _, record := range [][]byte{{}, {1}, {3, 0, 0, 0, 0, 0, 0, 0, 0}, append([]byte{1}, make([]byte, 9)...), want[4:]} {
			if _, err := there.Write(append([]byte{byte(len(record)), 0, 0, 0x10}, record...)); err != nil {
				t.Fatal(err)
			}
		}
		ping := bytes.Clone(want)
		ping[4] = 1
		if _, err := there.Write(ping); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(there, got); err != nil || !bytes.Equal(got, want) {
			t.Errorf("a ping is answered by % x, %v; want % x", got, err, want)
		}
		cancel()
		here.Close()
		if rest, err := io.ReadAll(there); err != nil || len(rest) != 0 {
			t.Errorf("behind it comes % x, %v", rest, err)
		}
	})
}

// TestLinkNoticesASilentHost: one that answers pings, and then no more. A host
// that never said that it does is not asked.
func TestLinkNoticesASilentHost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, extended)
		old := r.acceptExtended()
		old.raw(vector(t, "upgrade-answer.hex"))
		r.await("the link is up", func(s tapstack.LinkStatus) bool { return s.Connected })
		<-time.After(time.Hour)
		if got := r.link.Status(); got.Connects != 1 || !got.Connected {
			t.Fatalf("beside a host of the first version: %+v", got)
		}
		old.Close()
		h := r.acceptExtended()
		h.raw(vector(t, "upgrade-answer-2.hex"))
		up := time.Now()
		r.await("the link is up", func(s tapstack.LinkStatus) bool { return s.Connects == 2 && s.Connected })
		h.awaitEnd()
		if took := time.Since(up); took > 16*time.Second+time.Millisecond || took < 12*time.Second {
			t.Errorf("a silent host was noticed after %v, want 12 to 16 s", took)
		}
		r.await("the link says why", func(s tapstack.LinkStatus) bool { return strings.Contains(s.LastError, "sign of life") })
	})
}

// TestLinkLeavesAStalledHost: one that has taken nothing for a while, with a write to
// it under way. What it did not take goes to the next.
func TestLinkLeavesAStalledHost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, extended)
		r.acceptExtended().raw(vector(t, "upgrade-answer-2.hex"))
		r.await("the link is up", func(s tapstack.LinkStatus) bool { return s.Connected })
		up := time.Now()
		r.sendUp(frameOf("not taken"))
		r.await("the link is lost", func(s tapstack.LinkStatus) bool { return !s.Connected && s.Connects == 1 })
		if took := time.Since(up); took > 17*time.Second || took < 12*time.Second {
			t.Errorf("a stalled host was left after %v, want 12 to 16 s", took)
		}
		h := r.acceptExtended()
		h.raw(vector(t, "upgrade-answer-2.hex"))
		if got := h.read(); !bytes.HasSuffix(got, frameOf("not taken")) {
			t.Errorf("the next host gets % x, want what the last did not take", got)
		}
		if got := r.link.Status(); got.Losses != (tapstack.LinkLosses{Silent: 1}) {
			t.Errorf("losses are %+v, want one silent host", got.Losses)
		}
	})
}

// TestPingsDoNotCutFrames: a host that asks all the time, while large frames
// leave in small writes.
func TestPingsDoNotCutFrames(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(r *rig, c *tapstack.LinkConfig) { c.Plain, c.IPv6, c.WriteMax = false, true, 100 })
	h := r.acceptExtended()
	h.raw(vector(t, "upgrade-answer-2.hex"))
	ping := vector(t, "control-ping.hex")
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := h.Write(ping); err != nil {
				t.Errorf("ask: %v", err)
				return
			}
		}
	}()
	answers := 0
	h.frames.OnControl(func([]byte) { answers++ })
	large := offloaded(make([]byte, 40000), 1460)
	for range 50 {
		if err := r.app.WriteFrame(large); err != nil {
			t.Fatal(err)
		}
		if got, err := h.frames.Next(); err != nil || !bytes.Equal(got, large) {
			t.Fatalf("the host got %d bytes, %v; want the frame as it was", len(got), err)
		}
	}
	close(stop)
	// The last answer may wait for the host to read it, and the last ping for that.
	go io.Copy(io.Discard, h)
	<-stopped
	if answers == 0 {
		t.Error("no ping was answered")
	}
}

// TestLinkTellsWhatTheHostHas each time, before frames pass.
func TestLinkTellsWhatTheHostHas(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var told []tapstack.Capabilities
		r := newRig(t, func(r *rig, c *tapstack.LinkConfig) {
			extended(r, c)
			c.Up = func(host tapstack.Capabilities) {
				if r.link.Status().Connected {
					t.Error("told when the link was up already")
				}
				told = append(told, host)
			}
		})
		for i, name := range []string{"upgrade-answer-2.hex", "upgrade-answer.hex"} {
			h := r.acceptExtended()
			h.raw(vector(t, name))
			r.await("the link is up", func(s tapstack.LinkStatus) bool { return s.Connects == uint64(i)+1 })
			h.Close()
		}
		if len(told) != 2 || told[0] != ours() || told[1] != oldest() {
			t.Errorf("told %+v", told)
		}
	})
}
