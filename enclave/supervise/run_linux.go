package supervise

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// run is Run on Linux, with a context that has not ended.
func (p *Process) run(ctx context.Context) error {
	out, err := openOutput()
	if err != nil {
		return fmt.Errorf("supervise: start app %q: %w", p.config.Argv[0], err)
	}
	app, err := p.start(out)
	if err != nil {
		out.abandon()
		return err
	}
	forwarded := out.forward(p.config.Log)
	p.config.Log.Info("app started", slog.Int("pid", app.pid), slog.String("program", p.path))

	asked := false
	select {
	case <-ctx.Done():
		asked = true
	case <-app.ended:
	}
	killed := p.stop(app, out.silent)
	out.close(lastWords)
	<-forwarded
	return p.outcome(app, asked, killed)
}

// stop ends the app and its process group, and reports whether the app itself
// had to be killed.
func (p *Process) stop(app *started, silent <-chan struct{}) (killed bool) {
	app.signal(unix.SIGTERM)
	deadline := time.NewTimer(p.config.StopTimeout)
	defer deadline.Stop()
	select {
	case <-app.ended:
	case <-deadline.C:
		killed = true
	}
	if !killed {
		// A shell that dies of SIGTERM leaves its server behind, which may
		// be finishing requests: silence says that it is done too.
		select {
		case <-silent:
		case <-deadline.C:
		}
	}
	app.signal(unix.SIGKILL)
	<-app.ended
	if p.config.AdoptOrphans {
		app.reapRest()
	}
	return killed
}

// outcome logs how the app ended and makes it an error if it is one.
func (p *Process) outcome(app *started, asked, killed bool) error {
	if app.waitErr != nil {
		return fmt.Errorf("supervise: wait for app %q: %w", p.config.Argv[0], app.waitErr)
	}
	exit := &ExitError{Program: p.config.Argv[0], Code: app.status.ExitStatus()}
	if app.status.Signaled() {
		exit.Signal = app.status.Signal()
	}
	attrs := []any{slog.Int("pid", app.pid), slog.Int("status", exit.Code)}
	if exit.Signal != 0 {
		attrs = append(attrs, slog.String("signal", exit.Signal.String()))
	}
	if killed {
		p.config.Log.Warn("app did not stop in time and was killed", append(attrs, slog.Duration("timeout", p.config.StopTimeout))...)
		return nil
	}
	p.config.Log.Info("app ended", attrs...)
	if asked || (exit.Code == 0 && exit.Signal == 0) {
		return nil
	}
	return exit
}

// A started process is the app from its start to the collection of its status.
type started struct {
	pid     int
	ended   chan struct{} // closed when status and waitErr are set
	status  unix.WaitStatus
	waitErr error
}

// start starts the app. One goroutine starts it and waits for it, locked to its
// thread, because PR_SET_PDEATHSIG is about the death of the thread that forked.
func (p *Process) start(out *output) (*started, error) {
	if p.config.AdoptOrphans && os.Getpid() != 1 {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return nil, fmt.Errorf("supervise: adopt orphans: %w", err)
		}
	}
	app := &started{ended: make(chan struct{})}
	startErr := make(chan error)
	go p.startAndWait(app, out, startErr)
	if err := <-startErr; err != nil {
		return nil, startError(p.config.Argv[0], err)
	}
	return app, nil
}

// startAndWait starts the app, reports so, and waits for its end. The status is
// collected here and not by os.Process.Wait, which could not share a process
// with a wait for all children.
func (p *Process) startAndWait(app *started, out *output, startErr chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	proc, err := os.StartProcess(p.path, p.config.Argv, &os.ProcAttr{
		Dir:   p.config.Dir,
		Env:   p.environ(),
		Files: []*os.File{out.null, out.stdout.w, out.stderr.w},
		Sys:   &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		startErr <- err
		return
	}
	app.pid = proc.Pid
	_ = proc.Release() // closes a descriptor; it has no other way to fail
	startErr <- nil

	app.status, app.waitErr = waitFor(app.pid, p.config.AdoptOrphans)
	close(app.ended)
}

// waitFor collects the status of one child; with all, that of every other child
// that ends before it too.
func waitFor(pid int, all bool) (unix.WaitStatus, error) {
	which := pid
	if all {
		which = -1
	}
	for {
		var status unix.WaitStatus
		got, err := unix.Wait4(which, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, err
		case got == pid:
			return status, nil
		}
	}
}

// signal sends a signal to the app's process group. The group keeps its number
// for as long as it has a member; an empty one gives ESRCH, which is fine.
func (s *started) signal(sig unix.Signal) { _ = unix.Kill(-s.pid, sig) }

// reapRest collects what the app left behind: all of its group, which SIGKILL
// is about to end, and whatever else has ended by now.
func (s *started) reapRest() {
	reapAll(-s.pid, 0)
	reapAll(-1, unix.WNOHANG)
}

// reapAll collects children until there is none, or none that has ended.
func reapAll(which, options int) {
	for {
		got, err := unix.Wait4(which, nil, options, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || got == 0 {
			return
		}
	}
}
