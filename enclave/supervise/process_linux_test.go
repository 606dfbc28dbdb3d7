package supervise_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/corridor-enclave/corridor/enclave/supervise"
)

// roleEnv makes the test binary play an app, or a sidecar around one.
const roleEnv = "SUPERVISE_TEST_ROLE"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		if err := syscall.Setrlimit(syscall.RLIMIT_CPU, &syscall.Rlimit{Cur: 30, Max: 30}); err != nil {
			panic(err) // a mistake in a role must not outlive the test by much
		}
		play(role)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// quick keeps a process that is built with the race detector from waiting for a
// second at its end.
const quick = "GORACE=atexit_sleep_ms=0"

// play is what the processes of these tests do. They report by their output, by
// their status, and by holding a connection to the socket in CALL open.
func play(role string) {
	var call net.Conn
	if path := os.Getenv("CALL"); path != "" {
		call, _ = net.Dial("unix", path)
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	switch role {
	case "speaker":
		fmt.Println(os.Args[1:], os.Getenv("GREETING"))
		fmt.Fprint(os.Stderr, "bad byte \xff and \"quotes\"")
	case "cwd":
		dir, _ := os.Getwd()
		fmt.Println(dir)
	case "failing":
		os.Exit(7)
	case "crashing":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "graceful":
		fmt.Println("ready")
		<-term
		fmt.Println("bye")
		os.Exit(3)
	case "stubborn":
		fmt.Println("ready")
		select {}
	case "flood":
		for range 64 {
			_, _ = os.Stdout.Write(bytes.Repeat([]byte("0123456789abcde\n"), 4096))
		}
		fmt.Println("last words")
		_, _ = call.Write([]byte("flooded"))
	case "shell": // ends at once and leaves a server behind, which is ready
		again("server", nil)
		_, _ = io.ReadFull(call, make([]byte, 1))
	case "server":
		_, _ = call.Write([]byte("ready"))
		<-term
		fmt.Println("server is done")
	case "family":
		again("stubborn", nil)
		again("stubborn", nil)
		<-term
	case "daemon": // leaves a process behind that has left the group
		again("stubborn", &syscall.SysProcAttr{Setsid: true})
	case "breeder":
		breed()
	case "forker":
		again("leaf", &syscall.SysProcAttr{Setsid: true})
	case "leaf":
		leaf()
	case "sidecar":
		sidecar()
	}
}

// again starts the test binary in another role, without waiting for it. It
// inherits standard input and output.
func again(role string, attr *syscall.SysProcAttr) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleEnv+"="+role)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = attr
	if err := cmd.Start(); err != nil {
		fmt.Println("cannot start:", err)
		os.Exit(8)
	}
	return cmd
}

// leaf waits until its parent has died, says whose child it is now, and ends.
func leaf() {
	for strconv.Itoa(os.Getppid()) != os.Getenv("SIDECAR") {
		time.Sleep(time.Millisecond)
	}
	fmt.Println("leaf", os.Getpid())
}

// breed makes orphans and waits until somebody has reaped them.
func breed() {
	const orphans = 8
	r, w, _ := os.Pipe()
	stdout := os.Stdout
	os.Stdout = w
	for range orphans {
		_ = again("forker", nil).Wait()
	}
	w.Close()
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		pid := strings.TrimPrefix(lines.Text(), "leaf ")
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
			if _, err := os.Stat("/proc/" + pid); err != nil {
				break
			}
			if time.Now().After(deadline) {
				os.Exit(9)
			}
		}
		fmt.Fprintln(stdout, "reaped")
	}
}

// sidecar runs a breeder as PID 1 would run an app.
func sidecar() {
	env := append(os.Environ(), roleEnv+"=breeder", "SIDECAR="+strconv.Itoa(os.Getpid()))
	p, err := supervise.New(supervise.Config{
		Argv: []string{os.Args[0]}, Env: env, AdoptOrphans: true, Log: slog.New(slog.NewJSONHandler(os.Stdout, nil)),
	})
	if err == nil {
		err = p.Run(context.Background())
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// A journal is a log to look at while it is written.
type journal struct {
	mu      sync.Mutex
	records []map[string]any
	seen    chan string // the text of each line of app output; never blocks
}

func newJournal() *journal { return &journal{seen: make(chan string, 1000)} }

func (j *journal) Write(b []byte) (int, error) {
	var rec map[string]any
	if err := json.Unmarshal(b, &rec); err != nil {
		return 0, fmt.Errorf("not JSON: %q", b)
	}
	j.mu.Lock()
	j.records = append(j.records, rec)
	j.mu.Unlock()
	if text, ok := rec["text"].(string); ok {
		select {
		case j.seen <- text:
		default:
		}
	}
	return len(b), nil
}

func (j *journal) find(key string, value any) map[string]any {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, rec := range j.records {
		if rec[key] == value {
			return rec
		}
	}
	return nil
}

func (j *journal) await(t *testing.T, text string) {
	t.Helper()
	for got := range j.seen {
		if got == text {
			return
		}
	}
}

// app returns the configuration of this binary in a role, and its journal.
func app(role string, env ...string) (supervise.Config, *journal) {
	j := newJournal()
	return supervise.Config{
		Argv: []string{os.Args[0], "one", "two words"},
		Env:  append(os.Environ(), append(env, roleEnv+"="+role, quick)...),
		Log:  slog.New(slog.NewJSONHandler(j, nil)),
	}, j
}

// run runs the app in the background.
func run(t *testing.T, ctx context.Context, c supervise.Config) <-chan error {
	t.Helper()
	p, err := supervise.New(c)
	if err != nil {
		t.Fatal(err)
	}
	out := make(chan error, 1)
	go func() { out <- p.Run(ctx) }()
	return out
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	tests := []struct {
		name   string
		config supervise.Config
		want   string
	}{
		{"no program", supervise.Config{Log: log}, "no program"},
		{"empty program", supervise.Config{Argv: []string{""}, Log: log}, "no program"},
		{"no logger", supervise.Config{Argv: []string{"x"}}, "no logger"},
		{"negative timeout", supervise.Config{Argv: []string{"x"}, Log: log, StopTimeout: -1}, "negative"},
		{"not in PATH", supervise.Config{Argv: []string{"no-such-app"}, Log: log}, `app "no-such-app": executable file not found in $PATH (PATH is "`},
		{"not there", supervise.Config{Argv: []string{"/no/such/app"}, Log: log}, `app "/no/such/app": no such file`},
		{"not executable", supervise.Config{Argv: []string{text}, Log: log}, "permission denied"},
		{"no directory", supervise.Config{Argv: []string{"sh"}, Dir: "/no/such", Log: log}, `directory "/no/such"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, err := supervise.New(tt.config); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("New says %v; want %q in it", err, tt.want)
			}
		})
	}
}

// It runs alone: a fork of another test at the wrong moment would hold the files
// that are written here open, and executing them would give ETXTBSY.
func TestRunExplainsWhatDoesNotStart(t *testing.T) {
	tests := []struct{ name, content, want string }{
		{"a foreign binary", "\x7fELF nonsense", "another machine"},
		{"a script without its interpreter", "#!/no/such/interpreter\n", "interpreter"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "app")
			if err := os.WriteFile(path, []byte(tt.content), 0o700); err != nil {
				t.Fatal(err)
			}
			c, _ := app("")
			c.Argv = []string{path}
			if err := <-run(t, t.Context(), c); err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path) {
				t.Fatalf("Run = %v; want %q and the program in it", err, tt.want)
			}
		})
	}
}

func TestRunReportsHowTheAppEnded(t *testing.T) {
	t.Parallel()
	tests := []struct {
		role string
		want supervise.ExitError
	}{
		{"failing", supervise.ExitError{Code: 7}},
		{"crashing", supervise.ExitError{Code: -1, Signal: syscall.SIGKILL}},
	}
	for _, tt := range tests {
		t.Run(tt.role, func(t *testing.T) {
			t.Parallel()
			c, _ := app(tt.role)
			tt.want.Program = c.Argv[0]
			var got *supervise.ExitError
			if err := <-run(t, t.Context(), c); !errors.As(err, &got) || *got != tt.want {
				t.Fatalf("Run = %v; want %v", err, &tt.want)
			}
		})
	}
}

func TestRunForwardsOutputAndArguments(t *testing.T) {
	t.Parallel()
	c, j := app("speaker", "GREETING=hello")
	if err := <-run(t, t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if rec := j.find("text", "[one two words] hello"); rec == nil || rec["stream"] != "stdout" {
		t.Errorf("standard output: %v", rec)
	}
	if rec := j.find("text", "bad byte \uFFFD and \"quotes\""); rec == nil || rec["stream"] != "stderr" {
		t.Errorf("standard error: %v", rec)
	}
	if rec := j.find("msg", "app ended"); rec == nil || rec["status"] != 0.0 {
		t.Errorf("end: %v", rec)
	}
}

func TestRunUsesDir(t *testing.T) {
	t.Parallel()
	c, j := app("cwd")
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	c.Dir = dir
	if err := <-run(t, t.Context(), c); err != nil || j.find("text", dir) == nil {
		t.Fatalf("Run = %v, and the app did not say %q", err, dir)
	}
}

func TestRunDoesNothingWhenAskedToStopBefore(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c, j := app("speaker")
	if err := <-run(t, ctx, c); err != nil || len(j.records) != 0 {
		t.Fatalf("Run = %v, log %v; want nothing at all", err, j.records)
	}
}

func TestRunStopsTheApp(t *testing.T) {
	t.Parallel()
	tests := []struct {
		role    string
		timeout time.Duration
		event   string
		said    string
	}{
		{role: "graceful", timeout: time.Minute, event: "app ended", said: "bye"},
		{role: "stubborn", timeout: 50 * time.Millisecond, event: "app did not stop in time and was killed", said: "ready"},
	}
	for _, tt := range tests {
		t.Run(tt.role, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			c, j := app(tt.role)
			c.StopTimeout = tt.timeout
			out := run(t, ctx, c)
			j.await(t, "ready")
			cancel()
			if err := <-out; err != nil {
				t.Errorf("Run = %v; want nil, it was asked to stop", err)
			}
			if j.find("msg", tt.event) == nil || j.find("text", tt.said) == nil {
				t.Errorf("log %v; want %q and %q", j.records, tt.event, tt.said)
			}
		})
	}
}

// A shell at SIGTERM ends at once; the server that it started is asked too, may
// finish, and its output is not lost.
func TestRunLetsTheGroupFinish(t *testing.T) {
	t.Parallel()
	env, l := callers(t)
	c, j := app("shell", env)
	c.StopTimeout = time.Minute
	out := run(t, t.Context(), c)
	shell, server := accept(t, l), accept(t, l)
	ready := make([]byte, 5)
	if _, err := io.ReadFull(server, ready); err != nil {
		t.Fatal(err)
	}
	shell.Close() // the shell ends, with the server's handler of SIGTERM in place
	if err := <-out; err != nil {
		t.Fatal(err)
	}
	if j.find("text", "server is done") == nil {
		t.Errorf("log %v; want the server's last line", j.records)
	}
}

// callers listens where processes report by holding a connection.
func callers(t *testing.T) (env string, l net.Listener) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return "CALL=" + path, l
}

func accept(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestRunKillsWhatIsLeftOfTheGroup(t *testing.T) {
	t.Parallel()
	env, l := callers(t)
	c, _ := app("family", env)
	c.StopTimeout = 300 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	out := run(t, ctx, c)
	calls := []net.Conn{accept(t, l), accept(t, l), accept(t, l)} // the app and two children
	cancel()
	if err := <-out; err != nil {
		t.Fatal(err)
	}
	for _, c := range calls {
		if _, err := io.ReadAll(c); err != nil { // end of stream: the process is gone
			t.Error(err)
		}
	}
}

// A process that left the group cannot hold up the end by holding the output.
func TestRunDoesNotWaitForADaemon(t *testing.T) {
	t.Parallel()
	env, l := callers(t)
	c, _ := app("daemon", env)
	c.StopTimeout = 50 * time.Millisecond
	if err := <-run(t, t.Context(), c); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the app itself, and the daemon, in either order
		if pid := peerPID(t, accept(t, l)); alive(pid) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// alive reports whether a process of this binary has the number.
func alive(pid int) bool {
	exe, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe")
	return err == nil && strings.Contains(exe, "supervise.test")
}

func peerPID(t *testing.T, c net.Conn) int {
	t.Helper()
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	pid := 0
	err = raw.Control(func(fd uintptr) {
		if cred, err := syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	if err != nil || pid <= 1 {
		t.Fatalf("no peer process: %v", err)
	}
	return pid
}

// blockedHandler blocks on the first line of output until it is released.
type blockedHandler struct {
	slog.Handler
	release <-chan struct{}
}

func (h blockedHandler) Handle(ctx context.Context, rec slog.Record) error {
	if rec.Message == "app output" {
		<-h.release
	}
	return h.Handler.Handle(ctx, rec)
}

func TestRunNeverBlocksTheApp(t *testing.T) {
	t.Parallel()
	env, l := callers(t)
	c, j := app("flood", env)
	release := make(chan struct{})
	c.Log = slog.New(blockedHandler{slog.NewJSONHandler(j, nil), release})
	out := run(t, t.Context(), c)
	if got, err := io.ReadAll(accept(t, l)); string(got) != "flooded" { // 4 MiB later, with the log stuck
		t.Fatalf("the app said %q, %v", got, err)
	}
	close(release)
	if err := <-out; err != nil {
		t.Fatal(err)
	}
	rec := j.find("msg", "app output dropped, the log is too slow")
	if rec == nil || rec["lines"].(float64) < 1000 {
		t.Errorf("dropped lines are reported as %v", rec)
	}
	if j.find("text", "last words") == nil {
		t.Error("the last words of the app are missing")
	}
}

func TestRunAdoptsAndReapsOrphans(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleEnv+"=sidecar", quick)
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), `"text":"reaped"`) != 8 {
		t.Fatalf("the sidecar ended with %v after\n%s", err, out)
	}
}
