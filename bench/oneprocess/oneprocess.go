// Package oneprocess runs the parts of the stream road in one process, over
// loopback, with a marked point in each, so that a causal experiment can slow them.
// There is no TLS and no VSOCK in it; bench/hops measures the real binaries.
package oneprocess

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/corridor-enclave/corridor/bench/causal"
	"github.com/corridor-enclave/corridor/bench/sampleapp"
	"github.com/corridor-enclave/corridor/revproxy"
	"github.com/corridor-enclave/corridor/tapstack/relay"
)

// A Way is, from the outside in,
//
//	client ──► relay ──► proxy ──► app
//
// and can be entered before each of them.
type Way struct {
	ToRelay, ToProxy, ToApp          string // URLs without a path
	RelayPoint, ProxyPoint, AppPoint *causal.Point

	proxy    *revproxy.Proxy
	servers  []*http.Server
	listener net.Listener
	stop     context.CancelFunc
	running  sync.WaitGroup
}

// Start starts a way. Stop must be called.
func Start(log *slog.Logger) (*Way, error) {
	w := &Way{RelayPoint: &causal.Point{}, ProxyPoint: &causal.Point{}, AppPoint: &causal.Point{}}
	if err := w.start(log); err != nil {
		return nil, errors.Join(fmt.Errorf("oneprocess: %w", err), w.Stop())
	}
	return w, nil
}

func (w *Way) start(log *slog.Logger) error {
	app, err := w.serve(w.AppPoint, sampleapp.New())
	if err != nil {
		return err
	}
	w.ToApp = "http://" + app
	if w.proxy, err = revproxy.New(revproxy.Config{Apps: []*url.URL{{Scheme: "http", Host: app}}, Log: log}); err != nil {
		return err
	}
	front, err := w.serve(w.ProxyPoint, w.proxy)
	if err != nil {
		return err
	}
	w.ToProxy = "http://" + front
	if w.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return err
	}
	w.ToRelay = "http://" + w.listener.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	w.running.Go(func() { w.relay(ctx, front) })
	return nil
}

// serve starts a server behind a point and returns its address.
func (w *Way) serve(p *causal.Point, h http.Handler) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		p.Pass()
		h.ServeHTTP(rw, r)
	})}
	w.servers = append(w.servers, s)
	w.running.Go(func() { _ = s.Serve(l) }) // until Stop closes it
	return l.Addr().String(), nil
}

// relay joins every connection with one of its own to the proxy.
func (w *Way) relay(ctx context.Context, to string) {
	for {
		client, err := w.listener.Accept()
		if err != nil {
			return // Stop closed it
		}
		w.running.Go(func() {
			var d net.Dialer
			server, err := d.DialContext(ctx, "tcp", to)
			if err != nil {
				_ = client.Close() // the client sees it
				return
			}
			// What ended it, both ends have seen.
			_, _ = relay.Relay(ctx, marked{client, client.(*net.TCPConn), w.RelayPoint}, server, relay.Options{})
		})
	}
}

// marked passes a point whenever something has been read: a small request is read
// at once. It keeps the socket to itself, or the relay would read past it.
type marked struct {
	net.Conn
	tcp   *net.TCPConn
	point *causal.Point
}

func (m marked) Read(b []byte) (int, error) {
	n, err := m.tcp.Read(b)
	if n > 0 {
		m.point.Pass()
	}
	return n, err
}

// CloseWrite and SetLinger are what the relay ends a connection with.
func (m marked) CloseWrite() error           { return m.tcp.CloseWrite() }
func (m marked) SetLinger(seconds int) error { return m.tcp.SetLinger(seconds) }

// Stop stops all parts and returns when they are gone.
func (w *Way) Stop() error {
	var errs []error
	if w.listener != nil {
		w.stop()
		errs = append(errs, w.listener.Close())
	}
	for _, s := range w.servers {
		errs = append(errs, s.Close())
	}
	w.running.Wait()
	if w.proxy != nil {
		w.proxy.Close()
	}
	return errors.Join(errs...)
}
