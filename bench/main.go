// Command bench looks at the corridor from outside: it demonstrates it, serves
// as the app behind it, and measures it. Nothing of the product imports it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/corridor-enclave/corridor/bench/demo"
	"github.com/corridor-enclave/corridor/bench/sampleapp"
	"github.com/corridor-enclave/corridor/bench/servers"
	"github.com/corridor-enclave/corridor/tapstack/settings"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// Exit codes, as everywhere in this project.
const (
	exitOK = iota
	exitFailed
	exitUsage
)

const usage = `usage: bench COMMAND [flags]; bench COMMAND --help explains them

  demo        walk one request through the whole corridor on this machine
  run         measure hops in interleaved rounds, and print a table
  proxy       measure reverse proxies side by side
  link        measure the link beside gvproxy, pasta and a plain relay
  stream      measure the stream road beside HAProxy, and what idle connections cost
  attest      measure attestation documents
  vm          measure hops over real VSOCK, in a machine of our own
  compare     tell what changed from one report to another, beyond noise
  gate        fail if what is ours costs more than the baseline
  html        draw a report as one HTML page

  load        load a URL on a schedule, and measure from when requests should start
  saturate    double the load on a URL until it breaks, then look around the knee
  causal      say what would be gained if a hop were faster
  crosscheck  compare bench's own generator with wrk
  impair      relay between two sockets as a bad line would

  app         serve the sample app, as --listen says
  serve       serve as one of the peers that measurements compare with
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // after the first signal, a second one kills
	os.Exit(run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return exitUsage
	}
	commands := map[string]func(context.Context, []string, []string, io.Writer) error{
		"demo":       runDemo,
		"app":        runApp,
		"load":       runLoad,
		"causal":     runCausal,
		"crosscheck": runCrosscheck,
		"html":       runHTML,
		"impair":     runImpair,
		"saturate":   runSaturate,
		"serve":      runServe,
		"run":        runRun,
		"proxy":      runOne("proxy", "proxy"),
		"link":       runOne("link", "link"),
		"vm":         runVM,
		"stream":     runOne("stream", "stream,idle"),
		"attest":     runOne("attest", "attest,evidence,verify"),
		"compare":    runCompare,
		"gate":       runGate,
		"version":    runVersion,
	}
	command, ok := commands[args[0]]
	if !ok {
		if strings.TrimLeft(args[0], "-") == "help" || args[0] == "-h" {
			fmt.Fprint(stdout, usage)
			return exitOK
		}
		fmt.Fprintf(stderr, "bench: %q is no command\n%s", args[0], usage)
		return exitUsage
	}
	err := command(ctx, args[1:], environ, stdout)
	var u usageError
	switch {
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		fmt.Fprintf(stderr, "bench %s: stopped by a signal\n", args[0])
		return exitFailed
	case errors.As(err, &u):
		fmt.Fprintf(stderr, "bench %s: %v\n", args[0], err)
		return exitUsage
	case err != nil:
		fmt.Fprintf(stderr, "%v\n", err)
		return exitFailed
	}
	return exitOK
}

// A usageError is the user's mistake, not the machine's.
type usageError struct{ error }

// load parses a command's flags; done means that help was printed.
func load(s *settings.Set, args, environ []string, stdout io.Writer) (done bool, err error) {
	_, help := s.Load(args, environ)
	if help {
		return true, s.WriteUsage(stdout, "[flags]")
	}
	if err := s.Err(); err != nil {
		return true, usageError{err}
	}
	return false, nil
}

func runVersion(_ context.Context, _, _ []string, stdout io.Writer) error {
	_, err := fmt.Fprintln(stdout, "bench")
	return err
}

func runDemo(ctx context.Context, args, environ []string, stdout io.Writer) error {
	s := settings.New("bench demo")
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	bin := settings.Var(s, "bin", filepath.Dir(self), "`folder` of the binaries", func(v string) (string, error) { return v, nil })
	verbose := settings.Bool(s, "verbose", "show the logs of both ends too")
	if done, err := load(s, args, environ, stdout); done {
		return err
	}
	return (&demo.Demo{Bin: *bin, Out: stdout, Verbose: *verbose}).Run(ctx)
}

func runApp(ctx context.Context, args, environ []string, stdout io.Writer) error {
	s := settings.New("bench app")
	listen := settings.Var(s, "listen", "tcp:127.0.0.1:8081", "`address` to serve on, tcp:HOST:PORT, unix:PATH or vsock:PORT", parseServed)
	if done, err := load(s, args, environ, stdout); done {
		return err
	}
	l, err := listenOn(*listen)
	if err != nil {
		return fmt.Errorf("bench app: %w", err)
	}
	srv := &http.Server{Handler: sampleapp.New(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, Protocols: servers.Protocols()}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		stopped <- srv.Shutdown(grace)
	})
	fmt.Fprintf(stdout, "{\"msg\":\"listening\",\"addr\":%q}\n", l.Addr())
	err = srv.Serve(l)
	if stop() {
		return fmt.Errorf("bench app: %w", err)
	}
	return <-stopped
}

// A listenAddr is where the app listens, in the terms of package net.
type listenAddr struct{ network, address string }

func (a listenAddr) Network() string { return a.network }
func (a listenAddr) String() string  { return a.address }

// listenOn listens as parseServed understood it.
func listenOn(a net.Addr) (net.Listener, error) {
	if a.Network() != "vsock" {
		return net.Listen(a.Network(), a.String())
	}
	port, err := strconv.ParseUint(a.String(), 10, 32)
	if err != nil {
		return nil, err
	}
	return vsockconn.Kernel(vsockconn.KernelOptions{}).Listen(uint32(port))
}

func parseListen(v string) (net.Addr, error) {
	network, address, ok := strings.Cut(v, ":")
	if !ok || address == "" || network != "tcp" && network != "unix" {
		return nil, errors.New("neither tcp:HOST:PORT nor unix:PATH")
	}
	return listenAddr{network, address}, nil
}

// parseServed is parseListen for those that serve on VSOCK too.
func parseServed(v string) (net.Addr, error) {
	port, ok := strings.CutPrefix(v, "vsock:")
	if !ok {
		return parseListen(v)
	}
	if _, err := strconv.ParseUint(port, 10, 32); err != nil {
		return nil, errors.New("not a port of VSOCK")
	}
	return listenAddr{"vsock", port}, nil
}
