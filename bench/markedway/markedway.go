// Package markedway runs the real programs of the stream road, with TLS, and puts a
// relay with a marked point in front of each, so that a causal experiment can slow
// them one by one. The relays add a cost of their own to every request, which is part
// of the way that is asked about; bench/hops measures the way without them.
package markedway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/corridor-enclave/corridor/bench/causal"
	"github.com/corridor-enclave/corridor/bench/hops"
	"github.com/corridor-enclave/corridor/bench/ledger"
	"github.com/corridor-enclave/corridor/tapstack/relay"
)

// A Way is, from the outside in,
//
//	client ──► mark ──► host ──► mark ──► enclave ──► mark ──► app
//
// with a process for each of the three, and all marks in this one.
type Way struct {
	URL string

	running *hops.Running
	marks   []*mark // in front of host, enclave, app
	ends    sync.WaitGroup
	stop    context.CancelFunc
}

// names returns the hops behind the marks, as their processes are called.
func names() []string { return []string{"host", "enclave-sim", "app"} }

// A mark passes connections on, and its point whenever it has read something from the
// client's side: a small request is read at once.
type mark struct {
	causal.Point
	listener net.Listener
	to       hops.Place
}

// Start starts a way. Stop must be called.
func Start(ctx context.Context, tools hops.Tools) (*Way, error) {
	w := &Way{}
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	w.stop = stop
	running, err := hops.StartMarked(ctx, tools, func(at, to hops.Place) (string, error) { return w.put(inner, at, to) })
	if err != nil {
		stop()
		w.close()
		return nil, err
	}
	w.running, w.URL = running, running.URL
	return w, nil
}

// put puts a mark at a place, behind the marks that are nearer to the app.
func (w *Way) put(ctx context.Context, at, to hops.Place) (string, error) {
	l, err := net.Listen(at.Network, at.Address)
	if err != nil {
		return "", fmt.Errorf("markedway: %w", err)
	}
	m := &mark{listener: l, to: to}
	w.marks = append([]*mark{m}, w.marks...)
	w.ends.Go(func() { m.accept(ctx, &w.ends) })
	return l.Addr().String(), nil
}

func (m *mark) accept(ctx context.Context, ends *sync.WaitGroup) {
	for {
		client, err := m.listener.Accept()
		if err != nil {
			return // it was closed
		}
		ends.Go(func() {
			server, err := new(net.Dialer).DialContext(ctx, m.to.Network, m.to.Address)
			if err != nil {
				_ = client.Close() // the client sees it
				return
			}
			// What ended it, both ends have seen.
			_, _ = relay.Relay(ctx, marked{client, &m.Point}, server, relay.Options{})
		})
	}
}

// marked keeps the socket to itself, or the relay would read past the point.
type marked struct {
	net.Conn
	point *causal.Point
}

func (m marked) Read(b []byte) (int, error) {
	n, err := m.Conn.Read(b)
	if n > 0 {
		m.point.Pass()
	}
	return n, err
}

// CloseWrite passes on the end of one direction.
func (m marked) CloseWrite() error {
	half, ok := m.Conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return half.CloseWrite()
}

// Hops asks what each process spends on an operation while load runs, which returns how
// many there were.
func (w *Way) Hops(ctx context.Context, load func(context.Context) (operations int64, err error)) ([]causal.Hop, error) {
	before, err := ledger.Take(ctx, w.running.Accounts)
	if err != nil {
		return nil, err
	}
	operations, err := load(ctx)
	if err != nil {
		return nil, err
	}
	after, err := ledger.Take(ctx, w.running.Accounts)
	if err != nil {
		return nil, err
	}
	used, _ := after.Since(before)
	found := make([]causal.Hop, len(names()))
	for i, name := range names() {
		found[i] = causal.Hop{Name: name, Slow: w.marks[i].Slow}
		for _, p := range used {
			if p.Name == name {
				micros := (p.UserMicros + p.SystemMicros) / float64(operations)
				found[i].Cost = time.Duration(micros * float64(time.Microsecond))
			}
		}
	}
	return found, nil
}

// Stop stops all processes and marks, and returns when they are gone.
func (w *Way) Stop() error {
	err := w.running.Stop()
	w.stop()
	return errors.Join(err, w.close())
}

func (w *Way) close() error {
	var errs []error
	for _, m := range w.marks {
		errs = append(errs, m.listener.Close())
	}
	w.ends.Wait()
	return errors.Join(errs...)
}
