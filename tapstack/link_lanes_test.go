package tapstack_test

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

func TestAgreedLanes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ enclave, host, want int }{
		{0, 0, 1}, {0, 8, 1}, {1, 8, 1}, {2, 1, 1}, {2, 4, 2}, {4, 3, 3}, {8, 8, 8}, {9, 65535, 8},
	} {
		a, b := tapstack.Capabilities{Lanes: tt.enclave}, tapstack.Capabilities{Lanes: tt.host}
		if got := tapstack.AgreedLanes(a, b); got != tt.want || tapstack.AgreedLanes(b, a) != tt.want {
			t.Errorf("AgreedLanes(%d, %d) = %d, want %d from either side", tt.enclave, tt.host, got, tt.want)
		}
	}
}

func TestParseLanes(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "0", "9", "-1", "two", "Auto"} {
		if n, err := tapstack.ParseLanes(bad); err == nil {
			t.Errorf("ParseLanes(%q) = %d, want an error", bad, n)
		}
	}
	if n, err := tapstack.ParseLanes("3"); err != nil || n != 3 {
		t.Errorf("ParseLanes(3) = %d, %v", n, err)
	}
	if n, err := tapstack.ParseLanes("auto"); err != nil || n < 1 || n > 4 {
		t.Errorf("ParseLanes(auto) = %d, %v, want 1 to 4", n, err)
	}
}

func TestLinkRefusesTooManyQueues(t *testing.T) {
	t.Parallel()
	var queues []tapstack.Device
	for range tapstack.MaxLanes {
		_, q := tapstacktest.Pipe(tapstack.DefaultMTU)
		queues = append(queues, q)
	}
	_, err := tapstack.NewLink(tapstack.LinkConfig{Queues: queues})
	if err == nil || !strings.Contains(err.Error(), "9 queues, at most 8") {
		t.Errorf("NewLink = %v, want the number of queues named", err)
	}
}

// twoQueues gives the device a second queue, whose other end is second.
func twoQueues(second **tapstacktest.Device) func(*rig, *tapstack.LinkConfig) {
	return func(r *rig, c *tapstack.LinkConfig) {
		extended(r, c)
		app, queue := tapstacktest.Pipe(tapstack.DefaultMTU)
		*second = app
		c.Queues = []tapstack.Device{queue}
	}
}

// acceptAsking takes the next stream, whose request must be the vector.
func (r *rig) acceptAsking(request string) *hostStream {
	r.t.Helper()
	h := &hostStream{t: r.t, Conn: <-r.streams}
	r.t.Cleanup(func() { h.Close() })
	want := vector(r.t, request)
	got := make([]byte, len(want))
	if _, err := io.ReadFull(h, got); err != nil || !bytes.Equal(got, want) {
		r.t.Fatalf("request is %q, %v; want %q", got, err, want)
	}
	h.frames = tapstack.NewFrameReader(h, tapstack.Extended, tapstack.MaxFrame)
	return h
}

// acceptTwoLanes opens a link of two.
func (r *rig) acceptTwoLanes() (first, second *hostStream) {
	r.t.Helper()
	first = r.acceptAsking("upgrade-request-3.hex")
	first.raw(vector(r.t, "upgrade-answer-3.hex"))
	second = r.acceptAsking("upgrade-request-lane.hex")
	if r.link.Status().Connected {
		r.t.Error("the link is up before its second lane is")
	}
	second.raw(vector(r.t, "upgrade-answer-2.hex"))
	r.await("the link is up", func(s tapstack.LinkStatus) bool { return s.Connected && s.Lanes == 2 })
	return first, second
}

// next reads a frame of the uplink.
func (h *hostStream) next() []byte {
	h.t.Helper()
	frame, err := h.frames.Next()
	if err != nil {
		h.t.Fatal(err)
	}
	return frame[tapstack.OffloadHeader:]
}

// TestLinkOfTwoLanes: each queue has its lane in both directions, a lane whose host
// takes nothing holds up no other, and with one lane all are lost.
func TestLinkOfTwoLanes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var app *tapstacktest.Device
		r := newRig(t, twoQueues(&app))
		first, second := r.acceptTwoLanes()
		r.sendUp(frameOf("waits: nobody reads the first lane"))
		for range 100 {
			if err := app.WriteFrame(plain(frameOf("by the second queue"))); err != nil {
				t.Fatal(err)
			}
			if got := second.next(); !bytes.Equal(got, frameOf("by the second queue")) {
				t.Fatalf("the second lane has % x", got)
			}
		}
		second.raw(appendExtended(nil, plain(frameOf("down"))))
		buf := make([]byte, tapstack.MaxFrame)
		if n, err := app.ReadFrame(buf); err != nil || !bytes.Equal(buf[tapstack.OffloadHeader:n], frameOf("down")) {
			t.Errorf("the second queue got % x, %v", buf[:n], err)
		}
		if got := first.next(); !bytes.Equal(got, frameOf("waits: nobody reads the first lane")) {
			t.Errorf("the first lane has % x", got)
		}
		synctest.Wait() // until the last write has been counted
		if got := r.link.Status(); got.Uplink.Frames != 101 || got.Downlink.Frames != 1 || got.Drops != (tapstack.LinkDrops{}) {
			t.Errorf("status is %+v, want the frames of both lanes", got)
		}

		second.Close()
		if _, err := first.frames.Next(); err == nil {
			t.Error("a lane outlives the other")
		}
		r.await("the link is down", func(s tapstack.LinkStatus) bool { return !s.Connected && s.Lanes == 0 })
		r.acceptTwoLanes()
		if got := r.link.Status(); got.Reconnects != 1 {
			t.Errorf("%d reconnects, want 1 for both lanes", got.Reconnects)
		}
		if strings.Contains(r.log.String(), linkName) {
			t.Errorf("the log names the link:\n%s", r.log)
		}
	})
}

// TestLinkOfOneLane: hosts that take one lane, or name no link, get one, to which
// all queues go.
func TestLinkOfOneLane(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{"upgrade-answer.hex", "upgrade-answer-2.hex", "upgrade-answer-newer.hex"} {
		t.Run(answer, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var app *tapstacktest.Device
				r := newRig(t, twoQueues(&app))
				h := r.acceptAsking("upgrade-request-3.hex")
				h.raw(vector(t, answer))
				for _, queue := range []*tapstacktest.Device{r.app, app} {
					if err := queue.WriteFrame(plain(frameOf("up"))); err != nil {
						t.Fatal(err)
					}
					if got := h.next(); !bytes.Equal(got, frameOf("up")) {
						t.Errorf("the lane has % x", got)
					}
				}
			})
		})
	}
}

// TestLinkWithoutItsSecondLane: a host that refuses the second lane is asked for a
// whole link again, of the extended kind.
func TestLinkWithoutItsSecondLane(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"409": "HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n", "404": "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "the end": "",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var app *tapstacktest.Device
				r := newRig(t, twoQueues(&app))
				first := r.acceptAsking("upgrade-request-3.hex")
				first.raw(vector(t, "upgrade-answer-3.hex"))
				second := r.acceptAsking("upgrade-request-lane.hex")
				second.raw([]byte(answer))
				second.Close()
				if _, err := first.frames.Next(); err == nil {
					t.Error("the first lane stays open")
				}
				r.await("the attempt has failed", func(s tapstack.LinkStatus) bool { return strings.Contains(s.LastError, "open lane 1: ") })
				r.acceptTwoLanes()
			})
		})
	}
}
