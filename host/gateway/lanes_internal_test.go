package gateway

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// A laneConn has the CID of an enclave at its other end.
type laneConn struct {
	net.Conn
	cid vsockconn.CID
}

func (c laneConn) RemoteAddr() net.Addr { return vsockconn.Addr{CID: c.cid, Port: 1} }

// open is a stream of an enclave that says what it takes, with the answer it gets.
func (l *lanes) open(t *testing.T, cid vsockconn.CID, says tapstack.Capabilities) (*opening, net.Conn, tapstack.Capabilities) {
	t.Helper()
	host, enclave := net.Pipe()
	o := &opening{conn: laneConn{host, cid}}
	own, err := l.answer(o, tapstack.PlainPeer(), says)
	if err != nil {
		t.Fatal(err)
	}
	return o, enclave, own
}

func taking(lanes int, link string) tapstack.Capabilities {
	return tapstack.Capabilities{Lanes: lanes, Link: link}
}

func TestLanesOfNoLink(t *testing.T) {
	t.Parallel()
	l := newLanes(4)
	if _, err := l.answer(&opening{}, tapstack.PlainPeer(), taking(0, tapstack.NewLinkName())); !errors.Is(err, errNoSuchLink) {
		t.Errorf("a lane of a link that never was: %v", err)
	}
	first, _, own := l.open(t, 16, taking(2, ""))
	late, lateEnd, _ := l.open(t, 16, taking(0, own.Link))
	l.forget(first)
	if _, err := l.gather(t.Context(), late, 16); !errors.Is(err, errNoSuchLink) {
		t.Errorf("a lane of a link that gave up: %v", err)
	}
	if _, err := lateEnd.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the lane of a link that gave up: %v, want its end", err)
	}
	if len(l.waiting) != 0 {
		t.Errorf("%d links wait", len(l.waiting))
	}
}

func TestLanesAreNegotiated(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ host, enclave, want int }{{0, 8, 1}, {1, 2, 1}, {4, 0, 1}, {4, 1, 1}, {4, 2, 2}, {2, 4, 2}, {99, 99, 8}} {
		l := newLanes(tt.host)
		o, _, own := l.open(t, 16, taking(tt.enclave, ""))
		if o.more+1 != tt.want || (own.Link != "") != (tt.want > 1) || (own.Lanes > 0) != (tt.want > 1) {
			t.Errorf("a host of %d and an enclave of %d lanes: %d more, the host says %+v; want %d lanes", tt.host, tt.enclave, o.more, own, tt.want)
		}
		l.forget(o)
	}
}

func TestLinkGathersItsLanes(t *testing.T) {
	t.Parallel()
	l := newLanes(3)
	first, _, own := l.open(t, 16, taking(3, ""))
	want := []net.Conn{first.conn}
	for range 2 {
		lane, _, answer := l.open(t, 16, taking(0, own.Link))
		if answer.Link != "" || answer.Lanes != 0 {
			t.Errorf("a further lane is told %+v, want nothing of lanes", answer)
		}
		if conns, err := l.gather(t.Context(), lane, 16); conns != nil || err != nil {
			t.Errorf("a further lane has %d connections, %v; want none", len(conns), err)
		}
		want = append(want, lane.conn)
	}
	extra, extraEnd, _ := l.open(t, 16, taking(0, own.Link))
	if _, err := l.gather(t.Context(), extra, 16); !errors.Is(err, errNoSuchLink) {
		t.Errorf("one lane too many: %v", err)
	}
	if _, err := extraEnd.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("one lane too many: %v, want its end", err)
	}
	conns, err := l.gather(t.Context(), first, 16)
	if err != nil || len(conns) != len(want) {
		t.Fatalf("the link has %d connections, %v; want 3", len(conns), err)
	}
	for i := range want {
		if conns[i] != want[i] {
			t.Errorf("lane %d is not the one that came as such", i)
		}
	}
	closeAll(conns)
}

// TestLinkThatStaysIncomplete: what came is closed when lanes do not come, when one
// comes from another enclave, and when the host stops.
func TestLinkThatStaysIncomplete(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		cid  vsockconn.CID // of the second of three lanes
		stop bool
		want string // in the error
	}{
		"missing":    {cid: 16, want: "1 of 3 lanes did not come in 10s"},
		"of another": {cid: 17, want: "CID 17 opened a lane of it"},
		"stop":       {cid: 16, stop: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := newLanes(3)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				first, firstEnd, own := l.open(t, 16, taking(3, ""))
				second, secondEnd, _ := l.open(t, tt.cid, taking(0, own.Link))
				if _, err := l.gather(ctx, second, tt.cid); err != nil {
					t.Fatal(err)
				}
				if tt.stop {
					time.AfterFunc(time.Second, cancel)
				}
				conns, err := l.gather(ctx, first, 16)
				if conns != nil || (err == nil) != tt.stop || err != nil && !strings.Contains(err.Error(), tt.want) {
					t.Errorf("gather = %d connections, %v; want %q", len(conns), err, tt.want)
				}
				for _, end := range []net.Conn{firstEnd, secondEnd} {
					if _, err := end.Read(make([]byte, 1)); err != io.EOF {
						t.Errorf("a lane of it is left open: %v", err)
					}
				}
				if len(l.waiting) != 0 {
					t.Errorf("%d links wait", len(l.waiting))
				}
			})
		})
	}
}
