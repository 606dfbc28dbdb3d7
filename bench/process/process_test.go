package process_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/corridor-enclave/corridor/bench/process"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, script string) *process.Process {
	t.Helper()
	p, err := process.Start(process.Command{Name: "script", Path: "/bin/sh", Args: []string{"-c", script}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

func TestStartNamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	_, err := process.Start(process.Command{Path: "/nonexistent/program"})
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "program") {
		t.Fatalf("Start = %v", err)
	}
}

func TestWait(t *testing.T) {
	t.Parallel()
	p := start(t, `echo plain; echo '{"msg":"listening","addr":"127.0.0.1:1"}' >&2; printf unfinished; exec cat /dev/null`)
	r, err := p.WaitMessage(t.Context(), "listening")
	if err != nil || r.Text("addr") != "127.0.0.1:1" || r.Text("absent") != "" {
		t.Fatalf("Wait = %+v, %v", r, err)
	}
	if r, err := p.WaitMessage(t.Context(), "unfinished"); err != nil || r.Fields != nil {
		t.Fatalf("the line without an end: %+v, %v", r, err)
	}
	_, err = p.WaitMessage(t.Context(), "never")
	if err == nil || !strings.Contains(err.Error(), "code 0") || !strings.Contains(err.Error(), "plain") {
		t.Fatalf("after the end: %v", err)
	}
	if user, system := p.CPU(); user < 0 || system < 0 {
		t.Fatalf("CPU = %v, %v", user, system)
	}
}

func TestWaitEndsWithContext(t *testing.T) {
	t.Parallel()
	p := start(t, "exec sleep 60")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := p.WaitMessage(ctx, "never"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Wait = %v", err)
	}
}

func TestStop(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, script string
		grace        time.Duration
		code         int
	}{
		{"asked", `trap 'exit 7' TERM; echo up; while :; do read x < /dev/null; done`, time.Minute, 7},
		{"deaf", `trap '' TERM; echo up; exec sleep 60`, time.Millisecond, -1},
		{"gone", `echo up; exit 3`, time.Minute, 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := start(t, tt.script)
			if _, err := p.WaitMessage(t.Context(), "up"); err != nil {
				t.Fatal(err)
			}
			if tt.name == "gone" {
				<-p.Done()
			}
			if code := p.Stop(tt.grace); code != tt.code {
				t.Fatalf("exit code %d, want %d", code, tt.code)
			}
			if err := syscall.Kill(p.PID(), 0); !errors.Is(err, syscall.ESRCH) {
				t.Fatalf("still there: %v", err)
			}
			p.Stop(time.Second)
		})
	}
}

// TestHeirs: the output goes on when the command has ended, and ends with the last.
func TestHeirs(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := process.Start(process.Command{
		Name: "script", Path: "/bin/sh", Args: []string{"-c", `(read go <"$0"; echo heir "$go") & echo gone`, path}, Heirs: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	if _, err := p.WaitMessage(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	// Opened only now: until then the heir waits, and is the last with the output.
	go func() { _ = os.WriteFile(path, []byte("on\n"), 0o600) }()
	if _, err := p.WaitMessage(t.Context(), "heir on"); err != nil {
		t.Fatal(err)
	}
	<-p.Done()
}
