package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/bench/ledger"
	"github.com/corridor-enclave/corridor/bench/report"
	"github.com/corridor-enclave/corridor/tapstack/exposition"
)

// workerVariable turns a copy of the test binary into the process that is watched.
const workerVariable = "CORRIDOR_LEDGER_WORKER"

func TestMain(m *testing.M) {
	if os.Getenv(workerVariable) != "" {
		work(os.Stdin, os.Stdout)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// spin is how long work spins on a core.
const spin = 120 * time.Millisecond

// growth is how much memory work takes.
const growth = 32 << 20

// work says that it is there, waits for a byte, spins, reads a lot of zeros and grows,
// says that it is done, and stays until its input ends.
func work(in io.Reader, out io.Writer) {
	fmt.Fprintln(out, "ready")
	b := make([]byte, 1)
	if _, err := io.ReadFull(in, b); err != nil {
		return
	}
	for until := time.Now().Add(spin); time.Now().Before(until); {
	}
	zeros, err := os.Open("/dev/zero")
	if err != nil {
		return
	}
	defer zeros.Close()
	for range 100 {
		if _, err := io.ReadFull(zeros, make([]byte, 1000)); err != nil {
			return
		}
	}
	kept := make([]byte, growth)
	for i := 0; i < len(kept); i += 4096 {
		kept[i] = 1 // a page is there once it is written
	}
	fmt.Fprintln(out, "done")
	_, _ = io.Copy(io.Discard, in)
	runtime.KeepAlive(kept)
}

// A worker is such a process, and the ends of its pipes.
type worker struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out io.Reader
}

// startWorker starts it below a shell, so that it is a grandchild.
func startWorker(t *testing.T) *worker {
	t.Helper()
	w := &worker{cmd: exec.CommandContext(t.Context(), "/bin/sh", "-c", os.Args[0]+"; exit")}
	w.cmd.Env = append(os.Environ(), workerVariable+"=1")
	var err error
	if w.in, err = w.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if w.out, err = w.cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.in.Close()
		_ = w.cmd.Wait() // killed with the context, or ended with its input
	})
	w.expect(t, "ready\n")
	return w
}

func (w *worker) expect(t *testing.T, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(w.out, got); err != nil || string(got) != want {
		t.Fatalf("the worker says %q, %v; want %q", got, err, want)
	}
}

func take(t *testing.T, accounts ...ledger.Account) ledger.Mark {
	t.Helper()
	m, err := ledger.Take(t.Context(), accounts)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestTakeRefuses(t *testing.T) {
	t.Parallel()
	self := ledger.Account{Name: "self", PID: os.Getpid()}
	tests := []struct {
		name string
		a    ledger.Account
		want string
	}{
		{"nobody", ledger.Account{Name: "ghost", PID: 1 << 30}, "ghost"},
		{"nobody to ask", ledger.Account{Name: "mute", PID: os.Getpid(), Metrics: "/no/such.sock"}, "mute"},
	}
	for _, tt := range tests {
		if _, err := ledger.Take(t.Context(), []ledger.Account{self, tt.a}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one with %q", tt.name, err, tt.want)
		}
	}
	w := startWorker(t)
	w.in.Close()
	if _, err := io.Copy(io.Discard, w.out); err != nil {
		t.Fatal(err)
	}
	// Ended, but not yet waited for: a zombie's counts must not pass for zeros.
	if err := errors.Join(w.cmd.Process.Kill(), waitForZombie(w.cmd.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	if _, err := ledger.Take(t.Context(), []ledger.Account{{Name: "zombie", PID: w.cmd.Process.Pid}}); err == nil {
		t.Error("a process that had ended was counted")
	}
}

// waitForZombie waits by a signal-free read: /proc/PID/stat says Z once it is one.
func waitForZombie(pid int) error {
	for range 100_000 {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return err
		}
		if strings.Contains(string(text), ") Z ") {
			return nil
		}
	}
	return errors.New("it does not end")
}

// TestDescendantsAreCharged: work of a grandchild is found, and idleness too. What
// is asserted of time are bounds that no machine can miss: a process that spins for
// a while on the clock may get less of a core, never more.
func TestDescendantsAreCharged(t *testing.T) {
	t.Parallel()
	w := startWorker(t)
	account := ledger.Account{Name: "worker", Role: report.Subject, PID: w.cmd.Process.Pid}
	idle := take(t, account)
	before := take(t, account)
	if used, _ := before.Since(idle); used[0].UserMicros+used[0].SystemMicros > float64(spin.Microseconds())/2 {
		t.Errorf("an idle process used %+v", used[0])
	}
	if _, err := io.WriteString(w.in, "x"); err != nil {
		t.Fatal(err)
	}
	w.expect(t, "done\n")
	used, foreign := take(t, account).Since(before)
	p := used[0]
	if len(used) != 1 || p.Name != "worker" || p.Role != report.Subject || p.RSSBytes <= 0 {
		t.Errorf("%+v", used)
	}
	if p.UserMicros+p.SystemMicros < 1000 {
		t.Errorf("it worked and is charged %v + %v µs", p.UserMicros, p.SystemMicros)
	}
	if p.Reads != nil && (*p.Reads < 100 || *p.ReadBytes < 100_000) {
		t.Errorf("100 reads of 1000 bytes are charged as %d of %d", *p.Reads, *p.ReadBytes)
	}
	if p.GrownBytes < growth {
		t.Errorf("it took %d bytes and grew by %d", growth, p.GrownBytes)
	}
	if p.Voluntary < 1 {
		t.Errorf("it waited, without a switch")
	}
	if foreign < 0 || foreign > 1 {
		t.Errorf("others used %v of the machine", foreign)
	}
}

// TestAllocationsAreCharged: within what asking costs, which is taken off.
func TestAllocationsAreCharged(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "metrics.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: exposition.ProcessHandler(), ReadHeaderTimeout: time.Minute}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	defer func() { srv.Close(); <-done }()

	account := ledger.Account{Name: "self", Role: report.Subject, PID: os.Getpid(), Metrics: socket}
	before := take(t, account)
	kept := make([][]byte, 1000)
	for i := range kept {
		kept[i] = make([]byte, 4096)
	}
	used, _ := take(t, account).Since(before)
	if p := used[0]; p.Allocs == nil || *p.Allocs < 900 || *p.AllocBytes < 4096*900 {
		t.Errorf("1000 pages are charged as %+v", p)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ledger.Take(ctx, []ledger.Account{account}); err == nil {
		t.Error("asked although nobody wants to know")
	}
}
