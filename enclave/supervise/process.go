// Package supervise runs the app: it starts the process, passes its output on
// to the log without ever making it wait, and stops it with all that it started.
// It does not restart it and does not judge whether it is ready; sidecar and
// front do.
package supervise

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// DefaultStopTimeout is how long the app may take to stop if Config says nothing.
const DefaultStopTimeout = 10 * time.Second

// Config describes the app's process.
type Config struct {
	// Argv is the program and its arguments. A program without a slash is
	// looked up in the PATH of this process; a relative one starts from the
	// directory of this process, not from Dir. No shell ever sees it.
	Argv []string
	// Env is the app's environment as KEY=VALUE, of which the last one with a
	// key counts. Nil means that of this process.
	Env []string
	// Dir is the app's working directory. Empty means that of this process.
	Dir string
	// StopTimeout is the time between SIGTERM and SIGKILL. Zero means
	// DefaultStopTimeout.
	StopTimeout time.Duration
	// AdoptOrphans makes this process the parent of every process whose own
	// parent has died (PR_SET_CHILD_SUBREAPER), and reaps them all. The process
	// that is PID 1 has to do it, or zombies pile up. It collects every child
	// of this process, so nothing else here may start and wait for children
	// while Run does: set it in a program, not in a test.
	AdoptOrphans bool
	// Log gets the app's output and the events of its life. It must not be nil.
	Log *slog.Logger
}

// A Process is an app that can be run once or, after Run has returned, again.
type Process struct {
	config Config
	path   string
}

// New checks a Config and finds the program. Its error names the program as it
// was given.
func New(c Config) (*Process, error) {
	switch {
	case len(c.Argv) == 0 || c.Argv[0] == "":
		return nil, errors.New("supervise: no program given")
	case c.StopTimeout < 0:
		return nil, fmt.Errorf("supervise: stop timeout %v is negative", c.StopTimeout)
	case c.Log == nil:
		return nil, errors.New("supervise: no logger given")
	}
	if c.StopTimeout == 0 {
		c.StopTimeout = DefaultStopTimeout
	}
	if info, err := os.Stat(c.Dir); c.Dir != "" && (err != nil || !info.IsDir()) {
		return nil, fmt.Errorf("supervise: app's directory %q is not there", c.Dir)
	}
	path, err := exec.LookPath(c.Argv[0])
	if err != nil {
		return nil, startError(c.Argv[0], err)
	}
	if path, err = filepath.Abs(path); err != nil { // it must survive a change to Dir
		return nil, startError(c.Argv[0], err)
	}
	return &Process{config: c, path: path}, nil
}

// Run starts the app and waits for its end, or stops it when ctx ends:
//
//	        start            ctx ends              StopTimeout over
//	(idle) ───────► running ───────────► stopping ───────────────────┐
//	                   │                    │ app ended and           ▼
//	                   │ app ended          │ its output closed     SIGKILL
//	                   └──────────────────► │ ◄─────────────────────┘
//	                  (becomes stopping)    ▼
//	                                     returned
//
// Stopping begins with SIGTERM to the app's process group and ends with SIGKILL
// to what is left of it. An app that ends by itself is followed by the same, for
// the processes that it leaves behind in its group. A process that has left the
// group is not stopped; it loses its output.
//
// Run returns nil when ctx has ended or the app has ended by itself with status
// 0: the caller tells the two apart by ctx. It returns an *ExitError if the app
// failed by itself, and another error if it could not be started; trying again
// may help after the first and not after the second.
//
// If this process dies, the kernel kills the app (PR_SET_PDEATHSIG). A logger
// that never returns keeps Run from returning, though not the app from running.
func (p *Process) Run(ctx context.Context) error {
	if ctx.Err() != nil {
		return nil
	}
	return p.run(ctx)
}

// An ExitError reports that the app ended by itself, and not with status 0.
type ExitError struct {
	Program string         // as it was given, Argv[0]
	Code    int            // the exit status, or -1 after a signal
	Signal  syscall.Signal // what killed it, or 0
}

// Error says how the app ended.
func (e *ExitError) Error() string {
	if e.Signal != 0 {
		return fmt.Sprintf("supervise: app %q was killed by signal %d (%v)", e.Program, int(e.Signal), e.Signal)
	}
	return fmt.Sprintf("supervise: app %q ended with status %d", e.Program, e.Code)
}

// environ is the app's environment with each key once: programs do not agree on
// which of two counts. os/exec has the rule.
func (p *Process) environ() []string {
	return (&exec.Cmd{Env: p.config.Env, Dir: p.config.Dir}).Environ()
}

// startError says why a program does not start, in terms of what to change. The
// kernel's words for a missing interpreter and a missing program are the same.
func startError(program string, err error) error {
	hint := ""
	switch {
	case errors.Is(err, syscall.ENOEXEC):
		hint = " (built for another machine, or a script that does not begin with #!)"
	case errors.Is(err, fs.ErrNotExist) && exists(program):
		hint = " (the file is there, but its interpreter or dynamic loader is not: link it statically or add that)"
	case errors.Is(err, exec.ErrNotFound):
		hint = " (PATH is " + strconv.Quote(os.Getenv("PATH")) + ")"
	}
	// os and os/exec put the program's name in front; it is said once.
	cause := err
	if e := (*exec.Error)(nil); errors.As(cause, &e) {
		cause = e.Err
	}
	if e := (*fs.PathError)(nil); errors.As(cause, &e) {
		cause = e.Err
	}
	return fmt.Errorf("supervise: start app %q: %w%s", program, cause, hint)
}

func exists(program string) bool {
	if !strings.Contains(program, "/") {
		found, err := exec.LookPath(program)
		return err == nil && found != ""
	}
	_, err := os.Stat(program)
	return err == nil
}
