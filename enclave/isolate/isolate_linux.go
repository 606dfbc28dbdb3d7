//go:build sim && linux

package isolate

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	networkNamespace = "/proc/self/ns/net"
	// self is the running program, also if its file is in a directory that this
	// user may not search, or was replaced.
	self = "/proc/self/exe"
)

// remedy ends the errors of a machine that allows no namespaces.
const remedy = "remedy: run as root with CAP_SYS_ADMIN, or allow user namespaces: sysctl user.max_user_namespaces=10000, " +
	"and where they exist kernel.unprivileged_userns_clone=1 and kernel.apparmor_restrict_unprivileged_userns=0"

// enter is Enter on Linux.
func enter(o Options) (inside bool, exitCode int, err error) {
	current, err := os.Readlink(networkNamespace)
	if err != nil {
		return false, 0, fmt.Errorf("isolate: find the network namespace (remedy: mount /proc): %w", err)
	}
	if outside, ok := os.LookupEnv(marker); ok {
		err := arrive(outside, current, o)
		return err == nil, 0, err
	}
	o.Environ = append(without(o.Environ, marker), marker+"="+current)
	if os.Geteuid() == 0 {
		// Returns only if it did not work: a root without CAP_SYS_ADMIN may
		// still have user namespaces.
		if err := replaceSelf(o); !errors.Is(err, unix.EPERM) {
			return false, 0, failed("enter a network namespace", err)
		}
	}
	exitCode, err = runInside(o)
	return false, exitCode, err
}

// failed names what did not work, with the remedy if the machine forbade it: by
// permission, or by a limit of zero.
func failed(what string, err error) error {
	if errors.Is(err, os.ErrPermission) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EUSERS) || errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("isolate: %s: %w (%s)", what, err, remedy)
	}
	return fmt.Errorf("isolate: %s: %w", what, err)
}

// without is environ without a variable.
func without(environ []string, key string) []string {
	var kept []string
	for _, kv := range environ {
		if !strings.HasPrefix(kv, key+"=") {
			kept = append(kept, kv)
		}
	}
	return kept
}

// replaceSelf moves this thread into new namespaces and makes it the whole
// process. The PID stays, so whoever started us still has the right one.
func replaceSelf(o Options) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	return os.NewSyscallError("exec", unix.Exec(self, o.Args, o.Environ))
}

// passedOn are the signals that the process outside hands to the one inside.
func passedOn() []os.Signal {
	return []os.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2}
}

// runInside starts the program again as root of a user namespace, and waits. A
// program with threads, as every Go program is, cannot enter one itself. The
// child has a process group of its own, or a signal from the terminal would
// reach it twice, and the second one kills.
func runInside(o Options) (exitCode int, err error) {
	runtime.LockOSThread() // PR_SET_PDEATHSIG is about this thread's death
	defer runtime.UnlockOSThread()
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, passedOn()...)
	defer signal.Stop(signals)

	child, err := os.StartProcess(self, o.Args, &os.ProcAttr{
		Env:   o.Environ,
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys: &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
			Setpgid:     true,
			Pdeathsig:   unix.SIGKILL,
		},
	})
	if err != nil {
		return 0, failed("start in a user and network namespace", err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go passSignals(child, signals, stop, stopped)
	state, err := child.Wait()
	close(stop)
	<-stopped
	if err != nil {
		return 0, fmt.Errorf("isolate: wait for the process inside: %w", err)
	}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return state.ExitCode(), nil
}

// passSignals hands signals on until stop is closed.
func passSignals(child *os.Process, signals <-chan os.Signal, stop <-chan struct{}, stopped chan<- struct{}) {
	defer close(stopped)
	for {
		select {
		case <-stop:
			return
		case s := <-signals:
			_ = child.Signal(s) // fails only if the child has ended, and then Wait says so
		}
	}
}

// arrive makes sure that this process is inside and completes its isolation.
func arrive(outside, current string, o Options) error {
	if err := os.Unsetenv(marker); err != nil {
		return fmt.Errorf("isolate: %w", err)
	}
	if outside == current {
		return fmt.Errorf("isolate: %s is set, but this is the network namespace outside (remedy: unset it)", marker)
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("isolate: list interfaces: %w", err)
	}
	for _, i := range interfaces {
		if i.Flags&net.FlagUp != 0 {
			return fmt.Errorf("isolate: %s is set, but %s is up, so this is not a new network namespace (remedy: unset it)", marker, i.Name)
		}
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return failed("make mounts private", err)
	}
	if o.ResolvConf == "" {
		return nil
	}
	return cover(o.ResolvConf)
}
