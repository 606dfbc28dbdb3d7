// Package demo walks one request through the whole corridor on one machine, and
// says at each hop what happened. It starts the real binaries; the enclave is
// simulated by a network namespace that has nothing but VSOCK. It measures
// nothing: that is for the rest of bench.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/corridor-enclave/corridor/bench/process"
	"github.com/corridor-enclave/corridor/bench/sampleapp"
)

const (
	fqdn         = "demo.corridor.example"
	appAddress   = "127.0.0.1:8081" // in the enclave's own namespace
	egressBytes  = 1 << 20
	startTimeout = 30 * time.Second
	stopTimeout  = 10 * time.Second
	// hostAlias is how an enclave names the loopback of its host on the link.
	hostAlias = "192.168.127.254"
)

// A Demo runs once.
type Demo struct {
	Bin     string    // folder of the binaries
	Out     io.Writer // where the story is told
	Verbose bool      // show the logs of the processes too

	dir     string
	address string // where clients connect, by the link road
	stream  string // the same front, by the stream road
	origin  string // the server outside, as the enclave names it
	host    *process.Process
	enclave *process.Process
	client  *http.Client
}

// Run tells the story, and cleans up whatever happens. An error says which step
// failed, and the last lines of the process that it concerns.
func (d *Demo) Run(ctx context.Context) (err error) {
	if d.dir, err = os.MkdirTemp("", "corridor-demo-"); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	defer os.RemoveAll(d.dir)
	if err := d.permitted(); err != nil {
		return err
	}
	stopOrigin, err := d.startOrigin()
	if err != nil {
		return err
	}
	defer stopOrigin()
	defer func() { err = errors.Join(err, d.stop()) }()

	d.say("Corridor: one request, the whole way, on this machine\n")
	for _, step := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"starting host", d.startHost},
		{"starting the enclave", d.startEnclave},
		{"a request", d.request},
		{"the proof", d.verify},
		{"egress", d.egress},
		{"the stream road", d.byStream},
	} {
		if err := step.run(ctx); err != nil {
			return fmt.Errorf("demo: %s: %w", step.name, err)
		}
	}
	return nil
}

func (d *Demo) say(format string, a ...any) { fmt.Fprintf(d.Out, format+"\n", a...) }

func (d *Demo) start(name string, args ...string) (*process.Process, error) {
	c := process.Command{Path: filepath.Join(d.Bin, name), Args: args}
	if d.Verbose {
		c.Echo = d.Out
	}
	return process.Start(c)
}

// startOrigin starts the server outside, that the app will ask for something.
func (d *Demo) startOrigin() (stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("demo: server outside: %w", err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return nil, fmt.Errorf("demo: server outside: %w", err)
	}
	d.origin = net.JoinHostPort(hostAlias, port)
	srv := &http.Server{Handler: sampleapp.New(), ReadHeaderTimeout: startTimeout}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l) // ErrServerClosed, from stop
	}()
	return func() { srv.Close(); <-done }, nil
}

func (d *Demo) startHost(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	d.host, err = d.start("host", "--vsock", "dir:"+d.dir, "--control", "unix:"+filepath.Join(d.dir, "control.sock"),
		"--publish", "127.0.0.1:0=link:443", "--publish", "127.0.0.1:0=stream:1443", "--host-loopback", "on")
	if err != nil {
		return err
	}
	for _, road := range []struct {
		mark    string
		address *string
		meaning string
	}{
		{"=link:", &d.address, "leads to port 443 of the enclave, by the link"},
		{"=stream:", &d.stream, "leads to the same front, by a VSOCK stream for each client"},
	} {
		r, err := d.host.Wait(ctx, func(r process.Record) bool {
			return r.Message() == "published" && strings.Contains(r.Text("to"), road.mark)
		})
		if err != nil {
			return err
		}
		*road.address = r.Text("addr")
		d.say("  host         %s %s", *road.address, road.meaning)
	}
	return nil
}

func (d *Demo) startEnclave(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	app := []string{filepath.Join(d.Bin, "bench"), "app", "--listen", "tcp:" + appAddress}
	args := []string{"--isolate", "--vsock", "dir:" + d.dir, "--fqdn", fqdn, "--nsm-out", d.trust(),
		"--app", "http://" + appAddress, "--"}
	if d.enclave, err = d.start("enclave-sim", append(args, app...)...); err != nil {
		return err
	}
	if _, err := d.enclave.WaitMessage(ctx, "link is up"); err != nil {
		return err
	}
	d.say("  enclave      a namespace of its own, with loopback, tap0 and VSOCK; the link is up")
	d.client = d.newClient(d.address)
	if err := d.untilHealthy(ctx); err != nil {
		return err
	}
	d.say("  app          %s, started by the enclave's sidecar\n", strings.Join(app[1:], " "))
	return nil
}

func (d *Demo) trust() string { return filepath.Join(d.dir, "trust") }

// stop ends the enclave before its host, as an operator would.
func (d *Demo) stop() error {
	var errs []error
	for _, p := range []struct {
		name string
		p    *process.Process
	}{{"enclave-sim", d.enclave}, {"host", d.host}} {
		if p.p == nil {
			continue
		}
		if code := p.p.Stop(stopTimeout); code != 0 {
			errs = append(errs, fmt.Errorf("demo: %s exited with code %d:\n%s", p.name, code, p.p.Tail(5)))
		}
	}
	if d.client != nil {
		d.client.CloseIdleConnections()
	}
	if len(errs) == 0 && d.enclave != nil && d.host != nil {
		d.say("Both ends were asked to stop and did, in order; nothing is left behind.")
	}
	return errors.Join(errs...)
}
