package main

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// A manager is what systemd is to a service with a socket unit: it has the sockets,
// and starts the service with them, one process after another.
type manager struct {
	files []*os.File
	at    []string
}

// newManager opens sockets as ListenStream= says.
func newManager(t *testing.T, addrs ...string) *manager {
	t.Helper()
	m := &manager{}
	for _, addr := range addrs {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		t.Cleanup(func() { f.Close() })
		m.files, m.at = append(m.files, f), append(m.at, l.Addr().String())
	}
	return m
}

// command starts the program as systemd does: LISTEN_PID is the new process's own
// number, which nobody knows before there is one.
func (m *manager) command(program string, args ...string) *exec.Cmd {
	const script = `LISTEN_PID=$$ exec "$0" "$@"`
	cmd := exec.Command("/bin/sh", append([]string{"-c", script, program}, args...)...)
	cmd.ExtraFiles = m.files
	names := strings.Repeat(":corridor-host.socket", len(m.files))
	cmd.Env = append(os.Environ(), asHost+"=1", "LISTEN_FDS="+string(rune('0'+len(m.files))), "LISTEN_FDNAMES="+names[1:])
	return cmd
}

// A service is a process that a manager has started, and its heirs.
type service struct {
	*site
	ended  chan struct{}
	unused []any // sockets that it says it has no use for
}

// start starts the service, and returns when it is ready.
func (m *manager) start(t *testing.T, dir, program string, args ...string) *service {
	t.Helper()
	s := &service{&site{dir: dir, log: make(records, 1<<16), control: "unix:" + filepath.Join(dir, "c.sock")}, make(chan struct{}), nil}
	output, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := m.command(program, append([]string{"--vsock", "dir:" + dir, "--control", s.control, "--health-check", "off"}, args...)...)
	cmd.Stderr = theirs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	s.process.Store(int64(cmd.Process.Pid))
	go func() {
		defer close(s.ended)
		defer close(s.log)
		defer output.Close()
		for lines := bufio.NewScanner(output); lines.Scan(); {
			_, _ = s.log.Write(lines.Bytes())
		}
		_ = cmd.Wait()
	}()
	s.stop = sync.OnceFunc(func() {
		if err := syscall.Kill(int(s.process.Load()), syscall.SIGTERM); err != nil {
			t.Errorf("end process %d: %v", s.process.Load(), err)
		}
		<-s.ended
	})
	t.Cleanup(s.stop)
	for r := range s.log {
		if r["msg"] == "a socket of the service manager is published nowhere: its clients wait" {
			s.unused = append(s.unused, r["socket"])
		}
		if r["msg"] == "listening" && r["part"] == "control" {
			break
		}
	}
	return s
}

// TestActivatedRefuses: a socket that is none of ours is wrong in the unit, and the
// last line says so.
func TestActivatedRefuses(t *testing.T) {
	t.Parallel()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd := (&manager{files: []*os.File{f}}).command(program, "--vsock", "dir:"+t.TempDir(), "--control", "off")
	cmd.Stderr = &said
	if err := cmd.Run(); err == nil || cmd.ProcessState.ExitCode() != exitFailed || !strings.Contains(said.String(), "is no TCP port") {
		t.Errorf("%v\n%s", err, &said)
	}
}

// TestActivated: systemctl restart, with the binary replaced. Clients that come all
// the while wait when nobody is there, and none fails.
func TestActivated(t *testing.T) {
	t.Parallel()
	m := newManager(t, "127.0.0.1:0", "127.0.0.1:0")
	dir, old := t.TempDir(), filepath.Join(t.TempDir(), "host")
	args := []string{"--publish", m.at[0] + "=stream:1443@16", "--drain-timeout", "20s"}
	install(t, old)
	startInside(t, dir, 16)
	s := m.start(t, dir, old, args...)
	if len(s.unused) != 1 || s.unused[0] != "tcp:"+m.at[1] {
		t.Errorf("the sockets %v are not used", s.unused)
	}
	c, gone := visitAlways(t, 4, m.at[0])
	come := func() {
		for before := c.asked.Load(); c.asked.Load() < before+50 && c.failed.Load() == 0; {
			if err := askOnce(m.at[0]); err != nil {
				t.Errorf("a client: %v", err)
			}
		}
	}
	come()
	s.ctl(t, 0, "add", "publish", m.at[1]+"=stream:1443@16")
	if err := askOnce(m.at[1]); err != nil {
		t.Errorf("a socket that was published later: %v", err)
	}
	for range 2 {
		s.stop()
		// Nobody is there now.
		waits, err := net.Dial("tcp", m.at[0])
		if err != nil {
			t.Fatalf("a client while the service is down: %v", err)
		}
		if _, err := io.WriteString(waits, "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		install(t, old)
		s = m.start(t, dir, old, args...)
		if line, err := bufio.NewReader(waits).ReadString('\n'); err != nil || line != "HTTP/1.1 200 OK\r\n" {
			t.Errorf("a client that waited: %q, %v", line, err)
		}
		waits.Close()
		come()
	}
	s.upgrade(t) // with sockets that were lent, too
	come()
	gone()
	s.stop()
}

// install puts the program there by rename, as a running one has to be replaced.
func install(t *testing.T, path string) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// By a program of its own: a file that is open for writing here might be so in a
	// child that another test starts, and could not be run.
	if out, err := exec.Command("cp", program, path+".new").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}
