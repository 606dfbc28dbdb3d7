// Package process runs the project's binaries for demonstrations, tests and
// measurements: it keeps their log, waits for what they report, and stops them.
// It knows nothing of what they do.
package process

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/corridor-enclave/corridor/bench/cores"
)

// maxLine bounds one line of a log; a longer one is kept in pieces.
const maxLine = 256 << 10

// A Command says what to start.
type Command struct {
	Name string   // of the process in messages; empty means the base of Path
	Path string   // of the executable
	Args []string // without the name
	Env  []string // nil means the environment of this process
	Echo io.Writer

	// Namespace is the network that the command is started in; nil means that of
	// this process.
	Namespace *Namespace

	// Cores are those that it may run on; nil means those of this process.
	Cores []int

	// Heirs are processes that the command starts and that go on for it when it has
	// ended. With them Done is when they have ended too; ExitCode, CPU and Signal are
	// of the command alone.
	Heirs bool

	// Contained puts the command and all that it starts into a process namespace, so
	// that its children too die with it, even if it is killed. It needs
	// CAP_SYS_ADMIN.
	Contained bool
}

// A Record is one line of a process's output. Fields is nil when the line is not
// a JSON object.
type Record struct {
	Line   string
	Fields map[string]any
}

// Message returns the record's "msg", or the whole line where there is none.
func (r Record) Message() string {
	if m, ok := r.Fields["msg"].(string); ok {
		return m
	}
	return r.Line
}

// Text returns a field as text, empty when it is missing.
func (r Record) Text(key string) string {
	v, ok := r.Fields[key]
	if !ok {
		return ""
	}
	return fmt.Sprint(v)
}

// A Process is a started command. Its methods may be called from any goroutine.
type Process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{}
	err  error // of Wait; valid when done is closed

	mu      sync.Mutex
	records []Record
	grown   chan struct{} // closed and replaced whenever records grows
}

// Start starts the command. It dies with this process, even if that is killed:
// the thread that starts it lives as long as it does, and the kernel sends the
// parent-death signal when that thread ends (prctl(2), PR_SET_PDEATHSIG).
func Start(c Command) (*Process, error) {
	name := c.Name
	if name == "" {
		name = c.Path[strings.LastIndexByte(c.Path, '/')+1:]
	}
	p := &Process{name: name, done: make(chan struct{}), grown: make(chan struct{})}
	p.cmd = exec.Command(c.Path, c.Args...)
	p.cmd.Env = c.Env
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if c.Contained {
		p.cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWPID
	}
	sink := &lineSink{process: p, echo: c.Echo}
	p.cmd.Stdout, p.cmd.Stderr = sink, sink
	if !c.Heirs {
		p.cmd.WaitDelay = 2 * time.Second // a grandchild may hold the pipe open
	}
	started := make(chan error, 1)
	go lockThread(func() { p.run(c, sink, started) })
	if err := <-started; err != nil {
		return nil, fmt.Errorf("process: starting %s: %w", name, err)
	}
	return p, nil
}

// run starts the process, in its namespace and on its cores if there are some, and
// waits for its end. It has its thread to itself.
func (p *Process) run(c Command, sink *lineSink, started chan<- error) {
	var err error
	if c.Namespace != nil {
		err = c.Namespace.enter()
	}
	if err == nil && c.Cores != nil {
		err = cores.PinThread(c.Cores)
	}
	if err == nil {
		err = p.cmd.Start() // a process begins where its thread is
	}
	started <- err
	if err != nil {
		return
	}
	p.err = p.cmd.Wait()
	sink.flush()
	close(p.done)
}

// PID returns the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended and its output is complete.
func (p *Process) Done() <-chan struct{} { return p.done }

// ExitCode returns the exit code after Done, -1 if a signal ended the process.
func (p *Process) ExitCode() int {
	<-p.done
	return p.cmd.ProcessState.ExitCode()
}

// CPU returns the user and system time that the process and its reaped children
// used, after Done.
func (p *Process) CPU() (user, system time.Duration) {
	<-p.done
	return p.cmd.ProcessState.UserTime(), p.cmd.ProcessState.SystemTime()
}

// Signal sends a signal to the process alone.
func (p *Process) Signal(sig os.Signal) error { return p.cmd.Process.Signal(sig) }

// Wait returns the first record, past or future, that match accepts. It fails
// when the process ends before, or the context does.
func (p *Process) Wait(ctx context.Context, match func(Record) bool) (Record, error) {
	seen := 0
	for {
		p.mu.Lock()
		fresh, grown := p.records[seen:], p.grown
		seen = len(p.records)
		p.mu.Unlock()
		for _, r := range fresh {
			if match(r) {
				return r, nil
			}
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return Record{}, fmt.Errorf("process: waiting for %s: %w; its last lines:\n%s", p.name, ctx.Err(), p.Tail(10))
		case <-p.done:
			if p.count() > seen {
				continue // the last lines came with the end
			}
			return Record{}, fmt.Errorf("process: %s ended with code %d; its last lines:\n%s", p.name, p.ExitCode(), p.Tail(10))
		}
	}
}

// WaitMessage waits for a record with this message.
func (p *Process) WaitMessage(ctx context.Context, msg string) (Record, error) {
	return p.Wait(ctx, func(r Record) bool { return r.Message() == msg })
}

func (p *Process) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.records)
}

// Records returns all records so far.
func (p *Process) Records() []Record {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.records[:len(p.records):len(p.records)]
}

// Tail returns the last n lines of the output.
func (p *Process) Tail(n int) string {
	records := p.Records()
	if len(records) > n {
		records = records[len(records)-n:]
	}
	var b strings.Builder
	for _, r := range records {
		fmt.Fprintf(&b, "  %s: %s\n", p.name, r.Line)
	}
	return b.String()
}

// Stop asks the process to end by SIGTERM, kills its whole group after grace,
// and returns its exit code. Stopping twice is harmless.
func (p *Process) Stop(grace time.Duration) int {
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.Kill()
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		p.Kill()
	}
	return p.ExitCode()
}

// Kill kills the process and whatever it left in its group, and waits.
func (p *Process) Kill() {
	// ESRCH says that it is gone already, which is what we want.
	_ = syscall.Kill(-p.PID(), syscall.SIGKILL)
	<-p.done
}

func (p *Process) add(line string) {
	r := Record{Line: line}
	if strings.HasPrefix(line, "{") {
		// A line that is not JSON after all is kept as text.
		_ = json.Unmarshal([]byte(line), &r.Fields)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.records = append(p.records, r)
	close(p.grown)
	p.grown = make(chan struct{})
}

// A lineSink cuts a process's output into lines.
type lineSink struct {
	process *Process
	echo    io.Writer

	mu      sync.Mutex
	pending []byte
}

func (s *lineSink) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.echo != nil {
		if _, err := s.echo.Write(b); err != nil {
			return 0, err
		}
	}
	s.pending = append(s.pending, b...)
	for {
		i := bytes.IndexByte(s.pending, '\n')
		if i < 0 && len(s.pending) < maxLine {
			return len(b), nil
		}
		if i < 0 {
			s.process.add(string(s.pending))
			s.pending = s.pending[:0]
			continue
		}
		s.process.add(string(s.pending[:i]))
		s.pending = s.pending[i+1:]
	}
}

func (s *lineSink) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.pending) > 0 {
		s.process.add(string(s.pending))
		s.pending = nil
	}
}
