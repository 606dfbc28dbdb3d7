//go:build linux

package eventloop

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestStaleEvent: what the kernel has told of a socket that is closed now is not
// taken for news of the next one with its descriptor.
func TestStaleEvent(t *testing.T) {
	t.Parallel()
	l := &Loop{conns: make([]*Conn, 8)}
	c := &Conn{loop: l, fd: 7, born: 2}
	l.conns[7] = c
	for _, tt := range []struct {
		name string
		born int32
		want state
	}{
		{"of its predecessor", 1, 0},
		{"its own", 2, readable | hungUp},
	} {
		l.happened(unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP, Fd: 7, Pad: tt.born})
		if c.state != tt.want {
			t.Errorf("an event %s: state %b, want %b", tt.name, c.state, tt.want)
		}
	}
	l.conns[7] = nil
	l.happened(unix.EpollEvent{Events: unix.EPOLLIN, Fd: 7, Pad: 2}) // nobody's
}

func TestTimers(t *testing.T) {
	t.Parallel()
	var h timers
	now := time.Now()
	all := make([]timer, 5)
	for i, at := range []int{3, 1, 4, 0, 2} {
		all[i].index = -1
		h.set(&all[i], now.Add(time.Duration(at)))
	}
	h.set(&all[3], now.Add(9)) // the first becomes the last
	h.remove(&all[0])
	h.remove(&all[0]) // it is not there any more
	var got []time.Duration
	for len(h) > 0 {
		got = append(got, h[0].at.Sub(now))
		h.remove(h[0])
	}
	want := []time.Duration{1, 2, 4, 9}
	for i := range want {
		if len(got) != len(want) || got[i] != want[i] {
			t.Fatalf("in the order %v, want %v", got, want)
		}
	}
}

// TestRestMissesNothing: whatever a wait leaves behind, the next event ends the next.
func TestRestMissesNothing(t *testing.T) {
	t.Parallel()
	l, err := newLoop(0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	events := make([]unix.EpollEvent, 4)
	happen := func() {
		one := [8]byte{1}
		if _, err := unix.Write(l.wake, one[:]); err != nil {
			t.Error(err)
		}
	}
	r := l.rest
	for _, tt := range []struct {
		name  string
		until time.Duration
		first func()
		want  int
	}{
		{"whose time is over", -time.Second, func() {}, 0},
		{"after one in vain", time.Minute, happen, 1},
		{"in vain", time.Millisecond, func() {}, 0},
		{"whose time is over when something happens", -time.Second, happen, 0},
		{"for what was there before", time.Minute, func() {}, 1},
		{"with a gate that others left open", time.Minute, func() {
			r.step(0)
			happen()
			glance(l.poll, events) // gone before the look
			if r.step(0) {
				t.Error("something was found where nothing is")
			}
			happen()
		}, 1},
		{"for an event of another thread", time.Minute, func() { go happen() }, 1},
	} {
		tt.first()
		if n := r.wait(events, time.Now().Add(tt.until)); n != tt.want {
			t.Errorf("a wait %s: %d events, want %d", tt.name, n, tt.want)
		}
		if r.open {
			t.Errorf("a wait %s leaves the gate open: every event wakes the runtime", tt.name)
		}
	}
}
