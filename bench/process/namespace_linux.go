package process

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// A Namespace is a network of its own that has nothing but a loopback interface,
// which is down. It has no name, so that nothing can be left behind: it ends with
// Close and the last process in it.
type Namespace struct{ file *os.File }

// NewNamespace makes one. It needs CAP_SYS_ADMIN.
func NewNamespace() (*Namespace, error) {
	n := &Namespace{}
	err := onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("process: making a network namespace: %w", err)
		}
		var err error
		n.file, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		return nil, err
	}
	return n, nil
}

// NamespaceOf returns the network that a process is in.
func NamespaceOf(pid int) (*Namespace, error) {
	file, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return nil, fmt.Errorf("process: finding a network namespace: %w", err)
	}
	return &Namespace{file}, nil
}

// Do runs f on a thread inside of the namespace. Sockets that f opens belong to it
// for good; goroutines that f starts are not in it.
func (n *Namespace) Do(f func() error) error {
	return onOwnThread(func() error {
		if err := n.enter(); err != nil {
			return err
		}
		return f()
	})
}

// Path is where other programs find the namespace until Close.
func (n *Namespace) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd()) }

// Close lets the namespace go.
func (n *Namespace) Close() error { return n.file.Close() }

// enter moves the calling thread, which must be locked, into the namespace.
func (n *Namespace) enter() error {
	if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("process: entering a network namespace: %w", err)
	}
	return nil
}

// onOwnThread runs f on a thread that ends with it, so that what f changes about
// its thread changes nothing else.
func onOwnThread(f func() error) error {
	done := make(chan error, 1)
	go lockThread(func() { done <- f() })
	return <-done
}

// lockThread runs f on a thread that the runtime ends when the calling goroutine
// does. That cannot be the process's first thread, which never ends: while that one
// is kept busy, another has to do it.
func lockThread(f func()) {
	runtime.LockOSThread() // and not unlocked, which is what ends the thread
	if unix.Gettid() != unix.Getpid() {
		f()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		lockThread(f)
	}()
	<-done
	runtime.UnlockOSThread()
}
