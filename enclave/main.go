// Command enclave is Corridor's sidecar inside the enclave: it brings up the
// network, serves clients, proves what it is, and runs the app. Built with the
// tag sim it is enclave-sim, which needs no enclave and proves nothing.
//
// This file only wires; platform_kernel.go and platform_sim.go are what the two
// builds differ in. README.md is the manual.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/corridor-enclave/corridor/enclave/config"
	"github.com/corridor-enclave/corridor/enclave/sidecar"
	"github.com/corridor-enclave/corridor/tapstack/heap"
)

// The exit codes of the contract.
const (
	exitStopped = 0 // it was asked to stop, or the app ended with status 0
	exitFailed  = 1
	exitUsage   = 2
)

// memoryShare is what part of the memory the sidecar may fill before it collects
// eagerly: a quarter. The rest is the app's.
const memoryShare = 4

func main() { os.Exit(run(os.Args, os.Stderr)) }

func run(args []string, stderr io.Writer) int {
	cfg, help, err := config.Parse(build, args[1:], os.Environ())
	switch {
	case help:
		if err := config.WriteUsage(stderr, build); err != nil {
			return exitFailed
		}
		return exitStopped
	case err != nil:
		for line := range strings.SplitSeq(err.Error(), "\n") {
			fmt.Fprintf(stderr, "%s: %s\n", build.Program(), line)
		}
		fmt.Fprintf(stderr, "%s: --help explains every setting\n", build.Program())
		return exitUsage
	}
	log := slog.New(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: cfg.LogLevel}))
	// First of all, because it may start this program again elsewhere.
	inside, code, err := isolated(cfg, args)
	if err != nil {
		log.Error("failed", "error", err)
		return exitFailed
	}
	if !inside {
		return code
	}
	if pace, err := heap.Set(os.DirFS("/"), memoryShare, os.Environ()); err != nil {
		log.Warn("the collector keeps Go's own pace", "error", err)
	} else {
		log.Debug("memory", "bytes", pace.Memory, "limit", pace.Limit, "gogc", pace.Percent)
	}
	ctx, stop := untilSignal(context.Background(), log)
	defer stop()
	if err := serve(ctx, cfg, log); err != nil {
		log.Error("failed", "error", err)
		return exitFailed
	}
	log.Info("stopped")
	return exitStopped
}

// serve runs the sidecar until ctx ends.
func serve(ctx context.Context, cfg config.Config, log *slog.Logger) error {
	transport, err := newTransport(cfg)
	if err != nil {
		return err
	}
	module, err := openModule(cfg, log)
	if err != nil {
		return err
	}
	s, err := sidecar.New(sidecar.Config{
		Settings:     cfg,
		Transport:    transport,
		Module:       module,
		OwnNetwork:   ownNetwork(cfg),
		Environ:      os.Environ(), // as it is now: isolation has taken its own out
		AdoptOrphans: true,
		Now:          time.Now,
		Log:          log,
		Pool:         entropyPool(),
	})
	if err != nil {
		return err
	}
	stop, err := observed(cfg, s)
	if err != nil {
		return err
	}
	defer stop()
	return s.Run(ctx)
}

// untilSignal returns a context that the first SIGTERM or SIGINT ends. The
// second one ends the process at once. It has to be done by hand: for process 1,
// which the sidecar is in an enclave, the kernel has no default action.
func untilSignal(parent context.Context, log *slog.Logger) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	over := make(chan struct{})
	go func() {
		defer cancel()
		for first := true; ; first = false {
			select {
			case <-over:
				return
			case s := <-signals:
				if !first {
					log.Error("killed by a second signal", "signal", s.String())
					os.Exit(exitFailed)
				}
				log.Info("stopping; a second signal kills at once", "signal", s.String())
				cancel()
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(over)
	}
}
