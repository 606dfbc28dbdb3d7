package handover_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/corridor-enclave/corridor/host/handover"
)

// asSuccessor tells the test binary what to do as a new process.
const asSuccessor = "CORRIDOR_TEST_SUCCESSOR"

func TestMain(m *testing.M) {
	if role := os.Getenv(asSuccessor); role != "" {
		successor(role)
		return
	}
	goleak.VerifyTestMain(m)
}

// successor answers on each socket that it was left, until the old one is gone.
func successor(role string) {
	before, err := handover.Receive(os.Environ())
	switch {
	case role == "fails" || err != nil || before == nil:
		os.Exit(1)
	case role == "hangs":
		select {}
	}
	s := handover.NewSockets(before.Sockets)
	l, err := s.Listen("a", nil, net.FileListener)
	if err != nil {
		os.Exit(1)
	}
	gone, err := before.Ready()
	if err != nil {
		os.Exit(1)
	}
	s.Settle()
	go func() {
		<-gone
		l.Close()
	}()
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.WriteString(conn, "new: "+string(before.State[:5]))
		conn.Close()
	}
}

func command(t *testing.T, role string) *exec.Cmd {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), asSuccessor+"="+role)
	return cmd
}

func listen(t *testing.T, s *handover.Sockets, name, path string) *handover.Listener {
	t.Helper()
	l, err := s.Listen(name, func() (net.Listener, error) { return net.Listen("unix", path) }, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func ask(path string) (string, error) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	text, err := io.ReadAll(conn)
	return string(text), err
}

// TestNotReady: the old process keeps its sockets.
func TestNotReady(t *testing.T) {
	t.Parallel()
	s := handover.NewSockets(nil)
	path := filepath.Join(t.TempDir(), "s")
	l := listen(t, s, "a", path)
	for role, patience := range map[string]time.Duration{"fails": time.Minute, "hangs": 500 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if _, err := s.Start(ctx, command(t, role), []byte("state")); !errors.Is(err, handover.ErrNotReady) {
			t.Errorf("a process that %s: %v", role, err)
		}
		cancel()
	}
	if _, err := s.Start(t.Context(), exec.Command("/does/not/exist"), nil); !errors.Is(err, handover.ErrNotReady) {
		t.Errorf("no program: %v", err)
	}
	var answering sync.WaitGroup
	answering.Go(func() {
		if conn, err := l.Accept(); err == nil {
			conn.Close()
		}
	})
	if _, err := ask(path); err != nil {
		t.Errorf("the old process answers no more: %v", err)
	}
	answering.Wait()
	l.Close()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket's name is still there: %v", err)
	}
}

func TestHandover(t *testing.T) {
	t.Parallel()
	s := handover.NewSockets(nil)
	path := filepath.Join(t.TempDir(), "s")
	l := listen(t, s, "a", path)
	listen(t, s, "not wanted", path+"2")
	state := "state" + strings.Repeat("x", 1<<20)
	cmd := command(t, "serves")
	successor, err := s.Start(t.Context(), cmd, []byte(state))
	if err != nil {
		t.Fatal(err)
	}
	s.Retire()
	accepted := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		accepted <- err
	}()
	for range 10 {
		if got, err := ask(path); err != nil || got != "new: state" {
			t.Errorf("the answer is %q, %v", got, err)
		}
	}
	if len(accepted) > 0 {
		t.Error("the old process learns of the end before it closes its socket")
	}
	l.Close()
	if err := <-accepted; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept = %v", err)
	}
	if _, err := ask(path); err != nil {
		t.Errorf("closing the old socket took the new one's name: %v", err)
	}
	successor.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("the new process: %v", err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket's name is still there: %v", err)
	}
}

func TestReceiveRefuses(t *testing.T) {
	t.Parallel()
	for _, v := range []string{"", "x", "2", "-1"} {
		if p, err := handover.Receive([]string{handover.Variable + "=" + v}); err == nil {
			t.Errorf("%q passes: %+v", v, p)
		}
	}
	if p, err := handover.Receive([]string{"A=B"}); p != nil || err != nil {
		t.Errorf("without a predecessor: %+v, %v", p, err)
	}
	for name, messages := range map[string][]string{
		"nothing": nil, "an unknown message": {"x"}, "a socket without one": {"sname"}, "half of the state": {"dstate"},
	} {
		fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range messages {
			if _, err := syscall.Write(fds[0], []byte(m)); err != nil {
				t.Fatal(err)
			}
		}
		syscall.Close(fds[0])
		if p, err := handover.Receive([]string{handover.Variable + "=" + strconv.Itoa(fds[1])}); err == nil {
			t.Errorf("%s passes: %+v", name, p)
		}
	}
}

func TestNamesAreOnce(t *testing.T) {
	t.Parallel()
	s := handover.NewSockets(nil)
	path := filepath.Join(t.TempDir(), "s")
	l := listen(t, s, "a", path)
	if again, err := s.Listen("a", nil, nil); err == nil {
		t.Errorf("the same name again: %v", again)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the second Close = %v", err)
	}
	listen(t, s, "a", path)
	if _, err := s.Listen("b", func() (net.Listener, error) { return nil, os.ErrPermission }, nil); !errors.Is(err, os.ErrPermission) {
		t.Errorf("a socket that cannot be opened: %v", err)
	}
}
