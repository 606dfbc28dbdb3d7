package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

// folder gets both builds of this command; TestMain sets it.
var folder string

// buildBoth makes them, once, when the first test wants one.
var buildBoth = sync.OnceValue(func() error {
	for name, tag := range map[string]string{"enclave": "", "enclave-sim": "sim"} {
		out, err := exec.Command("go", "build", "-tags", tag, "-o", filepath.Join(folder, name), ".").CombinedOutput()
		if err != nil {
			return fmt.Errorf("building %s: %w\n%s", name, err, out)
		}
	}
	return nil
})

func TestMain(m *testing.M) {
	var err error
	if folder, err = os.MkdirTemp("", "corridor-enclave-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(folder)
	os.Exit(code)
}

// command is one of the two, with an environment without settings.
func command(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	if err := buildBoth(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(folder, name), args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// TestRefusals: what cannot work ends at once, with the right code, and says why.
func TestRefusals(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, binary string
		args, env    []string
		code         int
		says         []string
	}{
		{name: "every mistake", binary: "enclave", args: []string{"--mtu", "3", "--front", "x", "--vsock", "dir:/x"}, code: 2,
			says: []string{`enclave: --mtu "3"`, `enclave: --front "x"`, `enclave: --vsock "dir:/x"`, "enclave: --fqdn: missing", "--help"}},
		{name: "no simulation in production", binary: "enclave", code: 2,
			args: []string{"--fqdn", "a", "--isolate", "--nsm-debug", "--tls", "off"}, env: []string{"CORRIDOR_TLS=off", "CORRIDOR_ISOLATE=on"},
			says: []string{"--isolate: unknown", "--nsm-debug: unknown", "--tls: unknown"}},
		{name: "the machine's network", binary: "enclave-sim", args: []string{"--fqdn", "a"}, code: 2,
			says: []string{"enclave-sim: --link: would change this machine's own network"}},
		{name: "no such file", binary: "enclave", args: []string{"--config", "/does/not/exist"}, code: 2, says: []string{"--config"}},
		{name: "help", binary: "enclave-sim", args: []string{"--help"}, code: 0, says: []string{"usage: enclave-sim", "--nsm-seed"}},
		{name: "no such app", binary: "enclave-sim", code: 1,
			args: []string{"--link", "off", "--tls", "off", "--front", "tcp:127.0.0.1:0", "--", "no-such-program"},
			says: []string{`"level":"ERROR"`, `no-such-program`}},
		{name: "no such address", binary: "enclave-sim", code: 1,
			args: []string{"--link", "off", "--tls", "off", "--front", "tcp:192.0.2.1:80"},
			says: []string{`--front tcp:192.0.2.1:80: this machine has no such address`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cmd := command(t, tt.binary, tt.args...)
			cmd.Env = append(cmd.Env, tt.env...)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			_ = cmd.Run() // the code tells
			if code := cmd.ProcessState.ExitCode(); code != tt.code {
				t.Errorf("exit code %d; want %d: %s", code, tt.code, &stderr)
			}
			for _, want := range tt.says {
				if !strings.Contains(stderr.String(), want) {
					t.Errorf("said %q; want %q in it", &stderr, want)
				}
			}
		})
	}
}

// A simulation is a process whose log is read line by line.
type simulation struct {
	t       *testing.T
	cmd     *exec.Cmd
	records chan map[string]any
	seen    bytes.Buffer
}

func launch(t *testing.T, name string, args ...string) *simulation {
	t.Helper()
	s := &simulation{t: t, cmd: command(t, name, args...), records: make(chan map[string]any, 1024)}
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(s.records)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			var record map[string]any
			if json.Unmarshal(lines.Bytes(), &record) == nil {
				s.records <- record
			}
		}
	}()
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill() // gone already, as a rule
		<-read
		_ = s.cmd.Wait()
	})
	return s
}

// wait reads the log up to a record with this message, and part if there is one.
func (s *simulation) wait(msg, part string) map[string]any {
	s.t.Helper()
	return s.waitFor(msg, func(r map[string]any) bool { return r["msg"] == msg && (part == "" || r["part"] == part) })
}

// waitAll reads the log until each message, or line of the app's, was there, in
// whatever order: parts that run do not wait for each other.
func (s *simulation) waitAll(msgs ...string) {
	s.t.Helper()
	missing := slices.Clone(msgs)
	s.waitFor(fmt.Sprint(msgs), func(r map[string]any) bool {
		missing = slices.DeleteFunc(missing, func(msg string) bool { return r["msg"] == msg || r["text"] == msg })
		return len(missing) == 0
	})
}

func (s *simulation) waitFor(what string, found func(map[string]any) bool) map[string]any {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	for {
		select {
		case r, ok := <-s.records:
			if !ok {
				s.t.Fatalf("ended before it said %s; it said:\n%s", what, &s.seen)
			}
			fmt.Fprintln(&s.seen, r)
			if found(r) {
				return r
			}
		case <-ctx.Done():
			s.t.Fatalf("has not said %s; it said:\n%s", what, &s.seen)
		}
	}
}

// exit waits for the end and returns the code.
func (s *simulation) exit() int {
	s.t.Helper()
	for r := range s.records {
		fmt.Fprintln(&s.seen, r)
	}
	_ = s.cmd.Wait() // the code tells
	return s.cmd.ProcessState.ExitCode()
}

func (s *simulation) signal(sig os.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

func TestSignals(t *testing.T) {
	t.Parallel()
	t.Run("first drains", func(t *testing.T) {
		t.Parallel()
		s := launch(t, "enclave-sim", "--link", "off", "--tls", "off", "--front", "tcp:127.0.0.1:0", "--", "sleep", "1000")
		s.waitAll("listening", "app started")
		s.signal(syscall.SIGTERM)
		s.wait("app ended", "")
		if code := s.exit(); code != 0 {
			t.Errorf("exit code %d; want 0:\n%s", code, &s.seen)
		}
	})
	t.Run("second kills", func(t *testing.T) {
		t.Parallel()
		s := launch(t, "enclave-sim", "--link", "off", "--tls", "off", "--front", "tcp:127.0.0.1:0",
			"--", "sh", "-c", `trap "" TERM; echo deaf; while :; do sleep 1; done`)
		s.waitAll("listening", "deaf")
		s.signal(syscall.SIGINT)
		s.wait("draining", "front")
		s.signal(syscall.SIGTERM)
		s.wait("killed by a second signal", "")
		if code := s.exit(); code != 1 {
			t.Errorf("exit code %d; want 1:\n%s", code, &s.seen)
		}
	})
}

// TestProductionWithoutModule: outside an enclave the real binary serves nobody, and
// no setting makes it.
func TestProductionWithoutModule(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/dev/nsm"); err == nil {
		tapstacktest.Require(t, errors.New("/dev/nsm is there"), "a machine that is no enclave", "run the tests elsewhere")
	}
	refused := launch(t, "enclave", "--link", "off", "--app-api", "off", "--fqdn", "enclave.example", "--front", "tcp:127.0.0.1:0")
	if code := refused.exit(); code != 1 || !strings.Contains(refused.seen.String(), "no security module") || strings.Contains(refused.seen.String(), "listening") {
		t.Errorf("exit code %d, log:\n%s", code, &refused.seen)
	}
}
