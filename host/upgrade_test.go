package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

// asHost makes the test binary a host, whose arguments are all of the program's:
// what is started again must be a program of its own.
const asHost = "CORRIDOR_TEST_AS_HOST"

func TestMain(m *testing.M) {
	if os.Getenv(asHost) != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

// startProcess runs a host as a process. It is ended by its last successor's.
func startProcess(t *testing.T, args ...string) *site {
	t.Helper()
	s := &site{dir: t.TempDir(), log: make(records, 1<<16)}
	s.control = "unix:" + filepath.Join(s.dir, "c.sock")
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	output, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, append([]string{"--vsock", "dir:" + s.dir, "--control", s.control, "--health-check", "off"}, args...)...)
	cmd.Env = append(os.Environ(), asHost+"=1")
	cmd.Stderr = theirs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	var ending sync.WaitGroup
	ending.Go(func() { // to the end of all processes: they share it
		for lines := bufio.NewScanner(output); lines.Scan(); {
			_, _ = s.log.Write(lines.Bytes())
		}
	})
	ending.Go(func() { _ = cmd.Wait() })
	s.process.Store(int64(cmd.Process.Pid))
	s.stop = sync.OnceFunc(func() {
		if err := syscall.Kill(int(s.process.Load()), syscall.SIGTERM); err != nil {
			t.Errorf("end process %d: %v", s.process.Load(), err)
		}
		ending.Wait()
		output.Close()
	})
	t.Cleanup(s.stop)
	for m := s.log.await(t, "listening"); m["part"] != "control"; m = s.log.await(t, "listening") {
	}
	return s
}

// upgrade asks for a new process.
func (s *site) upgrade(t *testing.T) {
	t.Helper()
	var pid int
	if _, err := fmt.Sscanf(s.ctl(t, 0, "upgrade"), "process %d has taken over", &pid); err != nil {
		t.Fatal(err)
	}
	s.process.Store(int64(pid))
}

// A crowd is clients who each open one connection after another.
type crowd struct {
	asked, failed atomic.Int64
	mu            sync.Mutex
	first         error
}

// visitAlways lets n clients come until the returned function is called.
func visitAlways(t *testing.T, n int, at string) (*crowd, func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := &crowd{}
	var coming sync.WaitGroup
	for range n {
		coming.Go(func() {
			for ctx.Err() == nil {
				c.asked.Add(1)
				if err := askOnce(at); err != nil {
					c.failed.Add(1)
					c.mu.Lock()
					c.first = err
					c.mu.Unlock()
				}
			}
		})
	}
	return c, func() {
		cancel()
		coming.Wait()
		t.Logf("%d connections, %d failed", c.asked.Load(), c.failed.Load())
		if c.failed.Load() > 0 {
			t.Errorf("a client failed: %v", c.first)
		}
	}
}

// askOnce is one connection with one request.
func askOnce(at string) error {
	conn, err := net.Dial("tcp", at)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// TestUpgrade: a client that opens connections all the while sees no failure, one
// that is there stays, and what was changed at run time is still so.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "host.toml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("idle-timeout = \"2h\"\n")
	s := startProcess(t, "--config", file, "--publish", "127.0.0.1:0=stream:1443@16", "--observe", "tcp:127.0.0.1:0", "--drain-timeout", "5s")
	startInside(t, s.dir, 16)
	at := s.published(t)[0]
	s.ctl(t, 0, "set", "slow-start", "7s")
	s.ctl(t, 0, "add", "publish", "127.0.0.1:0=stream:1443@16")
	added := s.published(t)[1]

	stays := visit(t, at)
	stays.ask(t, "a.example")
	c, gone := visitAlways(t, 4, at)

	// A new process that cannot start changes nothing.
	write("idle-timeout = \"1ms\"\n")
	if got := s.ctl(t, 1, "upgrade"); !strings.Contains(got, "did not take over") {
		t.Errorf("upgrade to what cannot start says %s", got)
	}
	s.ctl(t, 0, "set", "stream-ready", "3")
	write("idle-timeout = \"3h\"\n")
	for range 3 {
		before := c.asked.Load()
		s.upgrade(t)
		for c.asked.Load() < before+50 {
			if err := askOnce(added); err != nil {
				t.Errorf("a port that was added: %v", err)
			}
		}
	}
	if got := stays.ask(t, "a.example"); got != "16" {
		t.Errorf("the connection that was there is answered %q", got)
	}
	stays.CloseIdleConnections()
	gone()
	for name, want := range map[string]string{"slow-start": "7s", "stream-ready": "3", "idle-timeout": "3h"} {
		if got := strings.TrimSpace(s.ctl(t, 0, "get", name)); got != want {
			t.Errorf("%s is %s after the upgrades, want %s", name, got, want)
		}
	}
	s.stop()
	left, err := filepath.Glob(filepath.Join(s.dir, "*.sock"))
	if err != nil || len(left) > 1 { // that of the enclave
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestThousandChanges: none of them is seen by a client.
func TestThousandChanges(t *testing.T) {
	t.Parallel()
	s := startHost(t, "--publish", "127.0.0.1:0=stream:1443@16,17")
	startInside(t, s.dir, 16)
	startInside(t, s.dir, 17)
	at := s.published(t)[0]
	_, gone := visitAlways(t, 2, at)
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", strings.TrimPrefix(s.control, "unix:"))
	}}}
	defer client.CloseIdleConnections()
	changes := []string{
		`[{"op":"add","setting":"drain","values":["16"]}]`, `[{"op":"set","setting":"publish","values":["AT=stream:1443@17"]}]`,
		`[{"op":"set","setting":"drain"},{"op":"set","setting":"publish","values":["AT=stream:1443@17,16","127.0.0.1:0=link:80"]}]`,
		`[{"op":"add","setting":"route","values":["AT/a.example@16"]},{"op":"set","setting":"idle-timeout","values":["2h"]}]`,
		`[{"op":"remove","setting":"route"},{"op":"remove","setting":"idle-timeout"},{"op":"set","setting":"publish","values":["AT=stream:1443@16,17"]}]`,
	}
	for i := range 1000 {
		body := strings.ReplaceAll(changes[i%len(changes)], "AT", at)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, "http://host/v1/config", bytes.NewReader([]byte(body)))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var answer struct{ Mistakes, Changes []any }
		err = json.NewDecoder(resp.Body).Decode(&answer)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || len(answer.Changes) == 0 {
			t.Fatalf("change %d: %s, %v, %v", i, resp.Status, answer, err)
		}
		for len(s.log) > cap(s.log)/2 {
			<-s.log
		}
	}
	gone()
}
