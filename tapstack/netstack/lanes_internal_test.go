package netstack

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/corridor-enclave/corridor/tapstack"
)

func send(c *card, packets ...*stack.PacketBuffer) {
	var list stack.PacketBufferList
	for _, p := range packets {
		list.PushBack(p)
	}
	c.WritePackets(list)
	list.Reset()
}

// TestFlowsKeepTheirLane: whatever the number of lanes, a flow is in one of them, in
// order, and no lane is left out.
func TestFlowsKeepTheirLane(t *testing.T) {
	t.Parallel()
	const flows, each = 200, 5
	for lanes := 1; lanes <= tapstack.MaxLanes; lanes++ {
		c := newCard(1500, new(counters))
		queues := c.useLanes(lanes)
		for _, q := range queues {
			q.open()
		}
		for number := range each {
			for port := range flows {
				send(c, flowPacket(port, number, 100))
			}
		}
		laneOf, next := map[int]int{}, map[int]int{}
		for lane, q := range queues {
			var taken []*stack.PacketBuffer
			for queued, _ := q.sizes(); queued > 0; queued, _ = q.sizes() {
				taken = q.take(taken)
				q.written(taken)
				for _, p := range taken {
					port := portOf(p)
					if before, known := laneOf[port]; known && before != lane {
						t.Fatalf("of %d lanes flow %d is in %d and %d", lanes, port, before, lane)
					}
					if number := numberOf(p); number != next[port] {
						t.Fatalf("of flow %d number %d comes, want %d", port, number, next[port])
					}
					laneOf[port] = lane
					next[port]++
				}
				release(taken)
			}
			q.close()
		}
		used := map[int]bool{}
		for _, lane := range laneOf {
			used[lane] = true
		}
		if len(laneOf) != flows || len(used) != lanes {
			t.Errorf("%d flows in %d of %d lanes, want %d in all", len(laneOf), len(used), lanes, flows)
		}
	}
}

// portIn is a flow of that lane.
func portIn(c *card, lane int) int {
	for port := 0; ; port++ {
		p := flowPacket(port, 0, 12)
		q := c.lane(p)
		p.DecRef()
		if q == (*c.lanes.Load())[lane] {
			return port
		}
	}
}

// TestLaneThatStallsHoldsUpNoOther: an enclave that takes nothing from one lane gets
// the other's flows, in order; and with the end of one lane all end.
func TestLaneThatStallsHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	stalled, first := net.Pipe()
	lively, second := net.Pipe()
	ended := make(chan error, 1)
	takes := tapstack.Capabilities{Offload: true, MaxFrame: tapstack.MaxFrame, MTU: 1500}
	go func() {
		ended <- s.AttachLanes(context.Background(), []net.Conn{first, second}, Peer{Framing: tapstack.Extended, Takes: takes})
	}()
	for s.Stats().Open != 2 || !s.isOpen() {
		runtime.Gosched()
	}
	stuck, alive := portIn(s.card, 0), portIn(s.card, 1)
	frames := tapstack.NewFrameReader(lively, tapstack.Extended, tapstack.MaxFrame)
	for number := range 50 {
		send(s.card, flowPacket(stuck, number, 30000), flowPacket(alive, number, 100))
		frame, err := frames.Next()
		if err != nil {
			t.Fatal(err)
		}
		if got := len(frame); got < 100 || got > 200 {
			t.Fatalf("the lively lane has a frame of %d bytes, want one of its own flow", got)
		}
	}
	stats := s.Stats()
	if len(stats.Lanes) != 2 || stats.Lanes[0].Queued < 49*30000 || stats.Lanes[1].DownlinkFrames < 49 {
		t.Errorf("lanes are %+v, want the first stuck and the second not", stats.Lanes)
	}
	stalled.Close()
	if err := <-ended; err == nil || errors.Is(err, ErrStalled) {
		t.Errorf("AttachLanes = %v, want the end of the first lane", err)
	}
	if _, err := frames.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("the second lane has %v behind the end of the first, want its end", err)
	}
}

// isOpen says whether all queues of the attached stream take packets.
func (s *Stack) isOpen() bool {
	for _, q := range *s.card.lanes.Load() {
		q.mu.Lock()
		opened := q.opened
		q.mu.Unlock()
		if !opened {
			return false
		}
	}
	return true
}
