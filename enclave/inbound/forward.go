package inbound

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/corridor-enclave/corridor/tapstack/pacing"
	"github.com/corridor-enclave/corridor/tapstack/relay"
)

const (
	// dialTimeout bounds the connection to the app, which is inside as well.
	dialTimeout = 10 * time.Second
)

// ForwardConfig says where a port's streams lead.
type ForwardConfig struct {
	Config
	// Network and Address are the app's, as for net.Dial: "tcp" or "unix".
	Network, Address string
	// DrainTimeout is how long connections may go on after Run was asked to stop.
	DrainTimeout time.Duration
}

// A Forwarder relays the streams of one port to an app that does not speak HTTP.
type Forwarder struct {
	cfg      ForwardConfig
	acceptor *acceptor
	relays   relay.Engine
}

// NewForwarder starts to take streams, which wait until Run. Close is for one that
// never runs.
func NewForwarder(cfg ForwardConfig) *Forwarder {
	return &Forwarder{cfg: cfg, acceptor: newAcceptor(cfg.Config)}
}

// Close stops taking streams.
func (f *Forwarder) Close() error { return f.acceptor.close() }

// Counts returns the counters of now.
func (f *Forwarder) Counts() Counts { return f.acceptor.counts() }

// Run relays until ctx ends or the listener fails. Then it takes no more, lets
// connections go on for the drain timeout, and resets what is left.
func (f *Forwarder) Run(ctx context.Context) error {
	hard, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	f.cfg.Log.Info("listening", "part", "streams", "addr", f.cfg.Listener.Addr().String(), "app", f.cfg.Address)
	stopListening := context.AfterFunc(ctx, func() { _ = f.Close() })
	defer stopListening()
	var relays sync.WaitGroup
	err := f.accept(hard, &relays)
	_ = f.Close() // it may have failed; then it closes here
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		relays.Wait()
	}()
	timeout := time.NewTimer(f.cfg.DrainTimeout)
	defer timeout.Stop()
	select {
	case <-drained:
	case <-timeout.C:
		f.cfg.Log.Warn("connections did not end in time: they are cut", "part", "streams", "addr", f.cfg.Listener.Addr().String())
	}
	cut()
	<-drained
	return err
}

// accept takes connections until the forwarder is closed.
func (f *Forwarder) accept(hard context.Context, relays *sync.WaitGroup) error {
	for {
		c, err := f.acceptor.accept()
		switch {
		case err == nil:
			relays.Go(func() { f.carry(hard, c, relays) })
		case f.acceptor.stopped():
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("inbound: accept streams: %w", err)
		default:
			f.acceptor.loose.Warn("stream not accepted", "error", err)
			pacing.Pause(f.acceptor.stop, pacing.Accept)
		}
	}
}

// carry brings one client to the app. If the app does not take it, the client is
// reset, as it would be by the app's own machine.
//
// The relay is a goroutine of its own, because it may be quiet for hours: the stack
// of this one has grown while connecting, and stays as large as long as it runs.
func (f *Forwarder) carry(hard context.Context, c *Conn, relays *sync.WaitGroup) {
	ctx, cancel := context.WithTimeout(hard, dialTimeout)
	app, err := new(net.Dialer).DialContext(ctx, f.cfg.Network, f.cfg.Address)
	cancel()
	if err != nil {
		f.acceptor.loose.Warn("app takes no connection", "app", f.cfg.Address, "error", err)
		c.Reset()
		return
	}
	relays.Go(func() { f.relay(hard, c, app) })
}

func (f *Forwarder) relay(hard context.Context, c *Conn, app net.Conn) {
	// The stream without its count, which is kept up to the end of the relay.
	defer c.leave()
	result, err := f.relays.Relay(hard, c.Conn, app, relay.Options{})
	f.cfg.Log.Debug("connection ended", "part", "streams", "client", c.RemoteAddr().String(),
		"downlink_bytes", result.AToB, "uplink_bytes", result.BToA, "err", err)
}
