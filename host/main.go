// Command host is Corridor's end on the parent instance: it gives each enclave a
// network and carries published ports into it. This package only wires config,
// gateway, publish and api together.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/corridor-enclave/corridor/host/api"
	"github.com/corridor-enclave/corridor/host/balance"
	"github.com/corridor-enclave/corridor/host/config"
	"github.com/corridor-enclave/corridor/host/credentials"
	"github.com/corridor-enclave/corridor/host/ctl"
	"github.com/corridor-enclave/corridor/host/egress"
	"github.com/corridor-enclave/corridor/host/gateway"
	"github.com/corridor-enclave/corridor/host/handover"
	"github.com/corridor-enclave/corridor/host/publish"
	"github.com/corridor-enclave/corridor/host/running"
	"github.com/corridor-enclave/corridor/host/streams"
	"github.com/corridor-enclave/corridor/host/telemetry"
	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/heap"
)

// memoryShare is what part of the memory the host may fill before it collects
// eagerly: half.
const memoryShare = 2

// Exit codes.
const (
	exitStopped = 0
	exitFailed  = 1
	exitUsage   = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // after the first signal, a second one kills
	os.Exit(run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// run is main without the process: it returns the exit code when ctx has ended
// and everything has stopped, or when something failed.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == "upgrade" {
		args = append([]string{"ctl"}, args...)
	}
	if len(args) > 0 && args[0] == "ctl" {
		c := ctl.Command{Args: args[1:], Control: config.DefaultControl(environ), Stdin: os.Stdin, Stdout: stdout, Stderr: stderr}
		return c.Run(ctx)
	}
	c, help, err := config.Load(args, environ)
	if err != nil {
		fmt.Fprintf(stderr, "%v\nhost --help lists the settings\n", err)
		return exitUsage
	}
	if help != "" {
		fmt.Fprint(stdout, help)
		return exitStopped
	}
	level := &slog.LevelVar{}
	level.Set(c.LogLevel)
	log := slog.New(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: level}))
	if pace, err := heap.Set(os.DirFS("/"), memoryShare, environ); err != nil {
		log.Warn("the collector keeps Go's own pace", "err", err)
	} else {
		log.Debug("memory", "bytes", pace.Memory, "limit", pace.Limit, "gogc", pace.Percent)
	}
	err = serve(ctx, c, args, environ, level, log)
	if err != nil {
		log.Error("host failed", "err", err)
		return exitFailed
	}
	log.Info("stopped")
	return exitStopped
}

// serve runs a host, a new one or one that goes on for another process.
func serve(ctx context.Context, c config.Config, args, environ []string, level *slog.LevelVar, log *slog.Logger) error {
	s, err := newStart(args, environ)
	if err != nil {
		return err
	}
	c, state, err := s.resume(c)
	if err != nil {
		return err
	}
	level.Set(c.LogLevel)
	h, err := open(c, s, state, level, log)
	if err != nil {
		return err
	}
	if s.before == nil {
		for _, name := range s.sockets.Unused() {
			log.Warn("a socket of the service manager is published nowhere: its clients wait", "socket", name)
		}
	}
	return h.run(ctx)
}

// A host is everything that runs, with its listeners open.
type host struct {
	log       *slog.Logger
	level     *slog.LevelVar // of the log
	running   *running.Host
	start     *start
	linkReady chan struct{} // closed once no other process has the enclaves' links
	stop      context.CancelFunc
	upgrading sync.Mutex
	successor *handover.Successor // nil until there is one; belongs to upgrading
	linkAPI   atomic.Bool         // whether enclaves may publish ports
	gateway   *gateway.Gateway
	publisher *publish.Publisher
	balancer  *balance.Balancer
	health    atomic.Pointer[config.HealthCheck]
	streams   *streams.Dialer
	telemetry *telemetry.Receiver
	link      net.Listener
	reports   net.Listener        // nil if enclaves are not heard
	calls     *egress.Server      // nil if they are not let out without a link
	role      *credentials.Server // nil if they are told no credentials
	control   net.Listener        // nil if there is no API
	observe   net.Listener        // nil if nobody may look elsewhere
	api       http.Handler
}

// open opens every listener, or none.
func open(c config.Config, s *start, state running.State, level *slog.LevelVar, log *slog.Logger) (_ *host, err error) {
	h := &host{log: log, level: level, start: s, linkReady: make(chan struct{})}
	defer func() {
		if err != nil {
			h.close()
		}
	}()
	c.Transport = handedTransport{c.Transport, s.sockets}
	plainMaxFrame := 0 // what its MTU needs
	if c.LargeFrames {
		plainMaxFrame = tapstack.MaxFrame
	}
	h.gateway = gateway.New(gateway.Config{
		MTU: c.MTU, WriteMax: c.WriteMax, Lanes: c.Lanes, PlainMaxFrame: plainMaxFrame, Grace: c.Grace, DNS: c.DNS, HostLoopback: c.HostLoopback, IPv6: c.IPv6, Egress: c.Egress, Log: log,
		LinkAPI: h.linkHandler,
	})
	h.streams = streams.New(streams.Config{Transport: c.Transport, Ready: c.Published.Ready, Log: log})
	h.balancer = balance.New(balance.Config{Check: h.check, Log: log})
	h.publisher = publish.New(publish.Config{
		Only: h.only, Listen: s.listenPort, LinkReady: h.linkReady, Link: h.dialLink, Stream: h.dialStream, Balancer: h.balancer, Tuning: tuningOf(c), Log: log,
	})
	h.running = running.New(state, h.prepare, log)
	h.telemetry = telemetry.New(telemetry.Config{Known: h.knows, Now: time.Now, Log: log})
	h.api = h.controlHandler(c.Transport)

	if h.link, err = c.Transport.Listen(c.LinkPort); err != nil {
		return nil, err
	}
	if c.Telemetry != 0 {
		if h.reports, err = c.Transport.Listen(c.Telemetry); err != nil {
			return nil, err
		}
	}
	if h.calls, err = listenCalls(c, h.gateway, log); err != nil {
		return nil, err
	}
	if h.role, err = listenRole(c, log); err != nil {
		return nil, err
	}
	if c.Control != "" {
		if h.control, err = s.listenControl(c.Control); err != nil {
			return nil, err
		}
		warnIfOpen(h.control.Addr(), log)
	}
	if c.Observe != "" {
		if h.observe, err = s.listenControl(c.Observe); err != nil {
			return nil, err
		}
	}
	return h, h.running.Start()
}

// warnIfOpen says so when others than this machine can control the host.
func warnIfOpen(a net.Addr, log *slog.Logger) {
	if t, ok := a.(*net.TCPAddr); ok && !t.IP.IsLoopback() {
		log.Warn("the control address asks nobody who they are: whoever reaches it may publish ports", "addr", a.String())
	}
}

// close closes what open opened.
func (h *host) close() {
	h.publisher.Close()
	if h.calls != nil {
		h.calls.Close()
	}
	if h.role != nil {
		h.role.Close()
	}
	for _, l := range []net.Listener{h.link, h.reports, h.control, h.observe} {
		if l != nil {
			l.Close()
		}
	}
}

// run runs all parts until ctx ends or one fails. The API and the published
// ports stop first; the link stays until published connections have ended,
// because it carries them, and calls are taken until then, because whoever serves
// them may have to make some.
func (h *host) run(ctx context.Context) error {
	linkCtx, closeLink := context.WithCancel(context.WithoutCancel(ctx))
	defer closeLink()
	callsCtx, closeCalls := context.WithCancel(context.WithoutCancel(ctx))
	defer closeCalls()
	ctx, h.stop = context.WithCancel(ctx)
	defer h.stop()
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := h.gateway.Run(linkCtx, h.link); err != nil {
			return err
		}
		h.leaveLinks()
		return nil
	})
	g.Go(func() error { return h.streams.Run(linkCtx) })
	g.Go(func() error { return h.balancer.Run(linkCtx) })
	g.Go(func() error {
		defer closeCalls()
		defer closeLink()
		return h.publish(gctx, closeLink)
	})
	g.Go(func() error { return h.heedSignals(gctx) })
	g.Go(func() error { return h.takeOver(gctx) })
	if h.reports != nil {
		g.Go(func() error { return h.telemetry.Run(linkCtx, h.reports) })
	}
	if h.calls != nil {
		g.Go(func() error { return h.calls.Run(callsCtx) })
	}
	if h.role != nil {
		g.Go(func() error { return h.role.Run(gctx) })
	}
	if h.control != nil {
		g.Go(func() error { return api.Serve(gctx, h.control, h.api, h.log) })
	}
	if h.observe != nil {
		g.Go(func() error { return api.Serve(gctx, h.observe, h.observeHandler(), h.log) })
	}
	err := g.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
