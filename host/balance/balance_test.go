package balance_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/corridor-enclave/corridor/host/balance"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type cids = []vsockconn.CID

var errSick = errors.New("sick")

// A ward is enclaves whose health the test decides.
type ward struct {
	*balance.Balancer
	log *tapstacktest.Log

	mu    sync.Mutex
	sick  map[vsockconn.CID]bool // in checks
	gone  map[vsockconn.CID]bool // cannot be reached
	dials []string
}

func newWard(t *testing.T) *ward {
	t.Helper()
	w := &ward{log: &tapstacktest.Log{}, sick: map[vsockconn.CID]bool{}, gone: map[vsockconn.CID]bool{}}
	w.Balancer = balance.New(balance.Config{Check: w.check, Log: slog.New(slog.NewTextHandler(w.log, nil))})
	return w
}

// run runs the Balancer for as long as the test.
func (w *ward) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := w.Run(ctx); err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

func (w *ward) check(_ context.Context, cid vsockconn.CID) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sick[cid] {
		return errSick
	}
	return nil
}

func (w *ward) set(state map[vsockconn.CID]bool, cid vsockconn.CID, v bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	state[cid] = v
}

// A named connection is to an enclave.
type named struct {
	net.Conn
	cid vsockconn.CID
}

func (w *ward) dial(_ context.Context, cid vsockconn.CID, wait bool) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dials = append(w.dials, fmt.Sprint(cid, " ", wait))
	if w.gone[cid] {
		return nil, io.ErrUnexpectedEOF
	}
	return named{cid: cid}, nil
}

// client brings one client in, and returns where it went and how it leaves.
func (w *ward) client(t *testing.T, among cids) (vsockconn.CID, func()) {
	t.Helper()
	conn, leave, err := w.Dial(t.Context(), among, w.dial)
	if err != nil {
		t.Fatal(err)
	}
	return conn.(named).cid, leave
}

func (w *ward) status(t *testing.T, cid vsockconn.CID) balance.Status {
	t.Helper()
	for _, s := range w.Status() {
		if s.CID == cid {
			return s
		}
	}
	t.Fatalf("nothing is known of CID %s", cid)
	return balance.Status{}
}

func TestNobodyTakesTheClient(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t)
		w.gone[16], w.gone[17] = true, true
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, _, err := w.Dial(ctx, cids{16, 17}, w.dial); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("Dial = %v, want the enclaves' error", err)
		}
		if len(w.dials) < 6 || ctx.Err() == nil {
			t.Errorf("%d attempts in a second: %v", len(w.dials), w.dials)
		}
		if got := w.status(t, 16); got.Connections != 0 || got.Failures == 0 || got.Health != "unchecked" {
			t.Errorf("%+v", got)
		}
	})
}

// TestOneEnclaveIsWaitedFor: there is nobody else, so the road itself waits.
func TestOneEnclaveIsWaitedFor(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	_, leave := w.client(t, cids{16})
	defer leave()
	if got := fmt.Sprint(w.dials); got != "[16 true]" {
		t.Errorf("attempts: %s", got)
	}
}

func TestFailover(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	w.gone[16] = true
	for range 3 {
		if cid, leave := w.client(t, cids{16, 17}); cid != 17 {
			t.Errorf("a client went to %s", cid)
		} else {
			leave()
		}
	}
	if got := w.dials[0]; got != "16 false" && got != "17 false" {
		t.Errorf("the first attempt is %s", got)
	}
}

func TestLeastConnections(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	count := map[vsockconn.CID]int{}
	leaves := map[vsockconn.CID][]func(){}
	for range 30 {
		cid, leave := w.client(t, cids{16, 17, 18})
		count[cid]++
		leaves[cid] = append(leaves[cid], leave)
	}
	if count[16] != 10 || count[17] != 10 || count[18] != 10 {
		t.Errorf("30 clients went to %v", count)
	}
	for _, leave := range leaves[17] {
		leave()
		leave() // is harmless
	}
	for range 5 {
		if cid, _ := w.client(t, cids{16, 17, 18}); cid != 17 {
			t.Errorf("the enclave with the fewest connections is 17, a client went to %s", cid)
		}
	}
}

// TestHealth goes once round the states.
func TestHealth(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t)
		policy := balance.Policy{Watched: cids{16, 17}, Interval: time.Second, Rise: 2, Fall: 3, SlowStart: 10 * time.Second}
		w.Apply(policy)
		w.run(t)
		goTo := func(health string, after time.Duration) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if got := w.status(t, 16); got.Health != health {
				t.Errorf("CID 16 is %s, want %s: %+v", got.Health, health, got)
			}
		}
		goTo("up", 10*time.Millisecond)
		w.set(w.sick, 16, true)
		goTo("up", 2*time.Second)   // two checks failed
		goTo("down", 1*time.Second) // three
		if got := w.status(t, 16); got.Reason != errSick.Error() {
			t.Errorf("the reason is %q", got.Reason)
		}
		for range 4 {
			if cid, _ := w.client(t, cids{16, 17}); cid != 17 {
				t.Error("a client went to the enclave that is down")
			}
		}
		// If no other takes the client, the checks may be wrong.
		w.set(w.gone, 17, true)
		if cid, leave := w.client(t, cids{16, 17}); cid != 16 {
			t.Errorf("a client went to %s", cid)
		} else {
			leave()
		}
		w.set(w.gone, 17, false)
		w.set(w.sick, 16, false)
		goTo("down", time.Second)
		goTo("warming", time.Second)
		w.set(w.sick, 16, true)
		goTo("down", 3*time.Second)
		w.set(w.sick, 16, false)
		goTo("warming", 2*time.Second)
		goTo("up", 10*time.Second)

		// Attempts count as checks do. Four clients stay at 17, so that 16 is asked first.
		w.set(w.gone, 16, true)
		for range 3 {
			_, leave := w.client(t, cids{16, 17})
			leave()
		}
		if got := w.status(t, 16); got.Health != "down" {
			t.Errorf("after as many attempts: %+v", got)
		}
		policy.Watched = nil
		w.Apply(policy)
		for _, s := range w.Status() {
			if s.Health != "unchecked" {
				t.Errorf("nobody is watched, but %+v", s)
			}
		}
		for _, want := range []string{"enclave is down", "enclave is up"} {
			if !strings.Contains(w.log.String(), want) {
				t.Errorf("the log does not say %q:\n%s", want, w.log)
			}
		}
	})
}

// TestSlowStart: one that came up gets few clients at first.
func TestSlowStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t)
		w.sick[16] = true
		w.Apply(balance.Policy{Watched: cids{16, 17}, Interval: time.Second, Rise: 1, Fall: 1, SlowStart: 10 * time.Second})
		w.run(t)
		synctest.Wait()
		w.set(w.sick, 16, false)
		time.Sleep(time.Second)
		synctest.Wait()
		share := func() (n int) {
			var leaves []func()
			for range 22 {
				cid, leave := w.client(t, cids{16, 17})
				leaves = append(leaves, leave)
				if cid == 16 {
					n++
				}
			}
			for _, leave := range leaves {
				leave()
			}
			return n
		}
		if n := share(); n == 0 || n > 3 {
			t.Errorf("at first it gets %d of 22 clients", n)
		}
		time.Sleep(5 * time.Second)
		if n := share(); n < 5 || n > 9 {
			t.Errorf("half way it gets %d of 22 clients", n)
		}
		time.Sleep(5 * time.Second)
		if n := share(); n != 11 {
			t.Errorf("in the end it gets %d of 22 clients", n)
		}
	})
}

func TestDrain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t)
		_, first := w.client(t, cids{16})
		_, second := w.client(t, cids{16})
		w.Apply(balance.Policy{Drained: cids{16}})
		if cid, leave := w.client(t, cids{16, 17}); cid != 17 {
			t.Error("a client went to the enclave that is drained")
		} else {
			leave()
		}
		idle := make(chan error, 1)
		go func() { idle <- w.AwaitIdle(t.Context(), 16) }()
		first()
		synctest.Wait()
		if len(idle) > 0 || w.status(t, 16).Connections != 1 {
			t.Errorf("idle with a connection: %+v", w.status(t, 16))
		}
		second()
		if err := <-idle; err != nil || !strings.Contains(w.log.String(), "its last connection has ended") {
			t.Errorf("AwaitIdle = %v, log:\n%s", err, w.log)
		}

		// Clients of an enclave that is drained wait until it is not.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, _, err := w.Dial(ctx, cids{16}, w.dial); !errors.Is(err, balance.ErrDrained) {
			t.Errorf("Dial = %v, want ErrDrained", err)
		}
		time.AfterFunc(time.Minute, func() { w.Apply(balance.Policy{}) })
		start := time.Now()
		_, leave := w.client(t, cids{16})
		if took := time.Since(start); took != time.Minute {
			t.Errorf("the client waited %v", took)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := w.AwaitIdle(ctx, 16); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("AwaitIdle of a busy enclave = %v", err)
		}
		leave()
	})
}
