package egress

import (
	"context"
	"net/netip"
	"testing"

	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

func TestPendingIsBoundedForEachDestination(t *testing.T) {
	t.Parallel()
	s := New(Config{Limits: Limits{Open: 9, Calling: 9, Pending: 2}})
	e := &enclave{pending: map[netip.AddrPort]int{}}
	one, other := netip.MustParseAddrPort("192.0.2.1:443"), netip.MustParseAddrPort("192.0.2.2:443")
	for _, want := range []bool{true, true, false} {
		if s.begin(e, one) != want {
			t.Errorf("%d are pending, and one more is not %t", e.pending[one], want)
		}
	}
	if !s.begin(e, other) {
		t.Error("another destination is held up")
	}
	s.end(e, other)
	s.end(e, one)
	if !s.begin(e, one) {
		t.Error("no room came back")
	}
	s.end(e, one)
	s.end(e, one)
	if len(e.pending) != 0 {
		t.Errorf("%v is kept", e.pending)
	}
}

// TestEnclavesAreForgotten: what is remembered of them is bounded, and one with a
// connection is not forgotten.
func TestEnclavesAreForgotten(t *testing.T) {
	t.Parallel()
	ended := 0
	s := New(Config{Outside: func(ctx context.Context, _ vsockconn.CID) Outside {
		context.AfterFunc(ctx, func() {})
		return nil
	}})
	first := s.enter(t.Context(), 1)
	cancel := first.cancel
	first.cancel = func() { ended++; cancel() }
	for cid := range vsockconn.CID(3 * maxKept) {
		e := s.enter(t.Context(), 100+cid)
		if e == nil {
			t.Fatal("no room")
		}
		s.connected(e)
		s.leave(e)
	}
	if len(s.enclaves) > maxKept || s.enclaves[1] != first || ended != 0 {
		t.Errorf("%d are remembered, the first is ended %d times", len(s.enclaves), ended)
	}
}
