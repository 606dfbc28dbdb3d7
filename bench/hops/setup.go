package hops

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/corridor-enclave/corridor/bench/binaries"
	"github.com/corridor-enclave/corridor/bench/ledger"
	"github.com/corridor-enclave/corridor/bench/process"
	"github.com/corridor-enclave/corridor/bench/report"
)

const (
	startTimeout = 20 * time.Second
	stopTimeout  = 5 * time.Second
	pollEvery    = 20 * time.Millisecond
	maxAnswer    = 1 << 20
	// smallAnswer is what the app serves to the loads of small requests.
	smallAnswer = "/hello"
	smallBytes  = 12
)

// Tools is where programs are found.
type Tools struct {
	// Bin is the folder of our own binaries.
	Bin string
	// Cores are those that variants run on, with their apps; nil means all.
	Cores []int
	// KernelVSOCK has both ends meet by the kernel's VSOCK, on one machine by its
	// loopback. Its ports are for one variant at a time, so that each hop is Fresh.
	KernelVSOCK bool
}

// Own returns the path of one of our own binaries.
func (t Tools) Own(p binaries.Program) (string, error) {
	path := filepath.Join(t.Bin, string(p))
	if _, err := os.Stat(path); err != nil {
		return "", &Missing{What: path, Remedy: "make build"}
	}
	return path, nil
}

// Installed returns the path of a program of the system, which comes with the named
// Debian package.
func (t Tools) Installed(program, pkg string) (string, error) {
	path, err := exec.LookPath(program)
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin"} { // of servers, outside of a user's PATH
		if err == nil {
			break
		}
		path, err = exec.LookPath(filepath.Join(dir, program))
	}
	if err != nil {
		return "", &Missing{What: program, Remedy: "make deps, or apt-get install " + pkg}
	}
	return path, nil
}

// Built returns the path of one of the pinned programs of others, which is built if
// that was not done before.
func (t Tools) Built(ctx context.Context, p binaries.Program) (string, error) {
	path, err := binaries.Build(ctx, t.Bin, p)
	if err != nil {
		return "", &Missing{What: string(p), Remedy: "run in the checkout, with Go and its module cache: " + err.Error()}
	}
	return path, nil
}

// A Running is a variant that was started.
type Running struct {
	// URL is what the loads of requests ask for, empty if there is only Work.
	URL string
	// Accept is what the loads of requests say that they accept; empty: nothing.
	Accept string
	// Bulk is the address through which an iperf3 server is reached, empty if the
	// variant carries no bulk.
	Bulk string
	// Dial is how the URL's host is reached, nil for TCP. Generators of others cannot.
	Dial func(context.Context) (net.Conn, error)
	// Work is one operation of a variant that is no process of its own; nil for all
	// others.
	Work func(context.Context) error
	// Accounts are its processes.
	Accounts []ledger.Account
	// Programs are the files that they run, by name.
	Programs map[string]string

	dir       string
	processes []*process.Process
	namespace *process.Namespace
}

// Asked is the URL that a load of requests asks for: answers that are not small are
// served under a name of their own.
func (r *Running) Asked(l report.Load) string {
	at, small := strings.CutSuffix(r.URL, smallAnswer)
	if !small || l.BodyBytes <= smallBytes {
		return r.URL
	}
	return fmt.Sprintf("%s/bytes?n=%d", at, l.BodyBytes)
}

// Dead returns the last words of the processes that have ended, empty if all run.
func (r *Running) Dead() string {
	var b strings.Builder
	for _, p := range r.processes {
		select {
		case <-p.Done():
			fmt.Fprintf(&b, "a process ended with code %d:\n%s", p.ExitCode(), p.Tail(8))
		default:
		}
	}
	return b.String()
}

// Stop stops the processes in reverse order of their start and removes what they
// left. How they end is not looked at: that is for the tests of the whole.
func (r *Running) Stop() error {
	for i := len(r.processes) - 1; i >= 0; i-- {
		r.processes[i].Stop(stopTimeout)
	}
	var err error
	if r.namespace != nil {
		err = r.namespace.Close()
	}
	return errors.Join(err, os.RemoveAll(r.dir))
}

// A Setup is what a variant starts itself with.
type Setup struct {
	ctx     context.Context
	tools   Tools
	running *Running
	// settings are given to every subject, behind its own arguments.
	settings []string
}

func newSetup(ctx context.Context, tools Tools) (*Setup, error) {
	dir, err := os.MkdirTemp("", "corridor-hop-")
	if err != nil {
		return nil, fmt.Errorf("hops: %w", err)
	}
	return &Setup{ctx: ctx, tools: tools, running: &Running{dir: dir, Programs: map[string]string{}}}, nil
}

// file returns a path in the variant's own folder.
func (s *Setup) file(name string) string { return filepath.Join(s.running.dir, name) }

// write writes such a file and returns its path.
func (s *Setup) write(name, content string) (string, error) {
	path := s.file(name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		return "", fmt.Errorf("hops: %w", err)
	}
	return path, nil
}

// A program is one process of a variant.
type program struct {
	name    string
	role    report.Role
	path    string
	args    []string
	inside  bool   // of the enclave's namespace
	metrics string // the unix socket on which it tells what it takes
	// workers says that it starts processes of its own.
	workers bool
}

// start starts the program and puts it into the accounts.
func (s *Setup) start(p program) (*process.Process, error) {
	args := p.args
	if p.role == report.Subject {
		args = slices.Concat(args, s.settings)
	}
	command := process.Command{Name: p.name, Path: p.path, Args: args, Cores: s.tools.Cores, Contained: p.workers && os.Geteuid() == 0}
	if p.inside {
		command.Namespace = s.running.namespace
	}
	started, err := process.Start(command)
	if err != nil {
		return nil, err
	}
	s.running.processes = append(s.running.processes, started)
	s.running.Programs[p.name] = p.path
	s.running.Accounts = append(s.running.Accounts, ledger.Account{Name: p.name, Role: p.role, PID: started.PID(), Metrics: p.metrics, Inside: p.inside})
	return started, nil
}

// bench starts this very program as a server and returns where it listens.
func (s *Setup) bench(name string, role report.Role, inside bool, metrics string, args ...string) (string, error) {
	path, err := s.tools.Own(binaries.Bench)
	if err != nil {
		return "", err
	}
	p, err := s.start(program{name: name, role: role, path: path, args: args, inside: inside, metrics: metrics})
	if err != nil {
		return "", err
	}
	return s.listening(p)
}

// listening waits until a program of ours says where it listens.
func (s *Setup) listening(p *process.Process) (string, error) {
	ctx, cancel := context.WithTimeout(s.ctx, startTimeout)
	defer cancel()
	r, err := p.WaitMessage(ctx, "listening")
	return r.Text("addr"), err
}

// app starts the app that everything is measured in front of.
func (s *Setup) app(inside bool) (string, error) {
	listen := "tcp:127.0.0.1:0"
	if inside {
		listen = "tcp:0.0.0.0:" + appPort // reached over the link too
	}
	return s.bench("app", report.App, inside, "", "app", "--listen", listen)
}

// untilAnswered asks until the variant answers, so that starting is not measured.
func (s *Setup) untilAnswered() error {
	// What is measured is where the time goes, not who answers.
	transport := &http.Transport{DisableKeepAlives: true, DialContext: s.dialContext(), TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	client := &http.Client{Transport: transport, Timeout: startTimeout}
	return s.until(func() error { return ask(s.ctx, client, s.running) })
}

// dialContext is nil where requests go by TCP.
func (s *Setup) dialContext() func(context.Context, string, string) (net.Conn, error) {
	dial := s.running.Dial
	if dial == nil {
		return nil
	}
	return func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }
}

func ask(ctx context.Context, client *http.Client, r *Running) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.URL, nil)
	if err != nil {
		return err
	}
	if r.Accept != "" {
		req.Header.Set("Accept", r.Accept)
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return err
}

// freeAddress returns a loopback address that nobody listens on, for programs that
// cannot be asked where they listen. Somebody may take it before they do; then they
// fail and say so.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("hops: find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// bothEnds returns the paths of our two binaries.
func (s *Setup) bothEnds() (host, enclave string, err error) {
	if host, err = s.tools.Own(binaries.Host); err != nil {
		return "", "", err
	}
	enclave, err = s.tools.Own(binaries.EnclaveSim)
	return host, enclave, err
}
