package simvsock

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A unix listener whose queue is full refuses at once; AF_VSOCK would wait.
func TestDialWaitsForAFullQueue(t *testing.T) {
	t.Parallel()
	path := shortDir(t) + "/full.sock"
	l := shortQueue(t, path)
	first, err := dialUnix(t.Context(), "", path) // fills the queue of one
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if c, err := dialUnix(ctx, "", path); c != nil || !errors.Is(err, context.DeadlineExceeded) && !strings.Contains(err.Error(), "timeout") {
		t.Fatalf("Dial of a full queue = %v, %v; want that time is up", c, err)
	}
	dialed := make(chan error, 1)
	go func() {
		c, err := dialUnix(context.Background(), "", path)
		if err == nil {
			c.Close()
		}
		dialed <- err
	}()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	if err := <-dialed; err != nil {
		t.Errorf("Dial while room is made = %v", err)
	}
}

// shortQueue listens on path with a queue of one.
func shortQueue(t *testing.T, path string) net.Listener {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	l, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}
