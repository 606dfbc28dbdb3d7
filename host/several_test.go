package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/tapstack/simvsock"
	"github.com/corridor-enclave/corridor/tapstack/stream"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// A running host under test, with its log.
type site struct {
	dir     string
	control string
	log     records
	stop    func() // ends it, and waits
	process atomic.Int64
}

// startHost runs a host on a simulated VSOCK. Its control socket is there when it
// returns.
func startHost(t *testing.T, args ...string) *site {
	t.Helper()
	s := &site{dir: t.TempDir(), log: make(records, 4096)}
	s.control = "unix:" + filepath.Join(s.dir, "c.sock")
	ctx, cancel := context.WithCancel(context.Background())
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, append([]string{"--vsock", "dir:" + s.dir, "--control", s.control, "--health-check", "http:1443", "--health-interval", "100ms", "--drain-timeout", "1s"}, args...), nil, io.Discard, s.log)
	}()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if got := <-code; got != exitStopped {
			t.Errorf("exit code %d, want %d", got, exitStopped)
		}
	})
	t.Cleanup(s.stop)
	for m := s.log.await(t, "listening"); m["part"] != "control"; m = s.log.await(t, "listening") {
	}
	return s
}

// ctl runs a command, and returns what it says.
func (s *site) ctl(t *testing.T, want int, args ...string) string {
	t.Helper()
	var out strings.Builder
	if code := run(t.Context(), append([]string{"ctl", "--control", s.control}, args...), nil, &out, &out); code != want {
		t.Errorf("host ctl %v: exit code %d, want %d\n%s", args, code, want, &out)
	}
	return out.String()
}

// published returns where the host listens.
func (s *site) published(t *testing.T) (at []string) {
	t.Helper()
	for line := range strings.Lines(s.ctl(t, 0, "get", "publish")) {
		local, _, _ := strings.Cut(line, "=")
		at = append(at, local)
	}
	return at
}

// An inside is an enclave that answers every request with its CID.
type inside struct {
	cid     vsockconn.CID
	l       net.Listener
	cut     func() // ends all connections
	serving sync.WaitGroup
}

func startInside(t *testing.T, dir string, cid vsockconn.CID) *inside {
	t.Helper()
	transport, err := simvsock.Dir(dir, cid)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	e := &inside{cid: cid, cut: cancel}
	if e.l, err = transport.Listen(stream.Port); err != nil {
		t.Fatal(err)
	}
	e.serving.Go(func() {
		for {
			conn, err := e.l.Accept()
			if err != nil {
				return
			}
			context.AfterFunc(ctx, func() { conn.Close() })
			e.serving.Go(func() { e.serve(conn) })
		}
	})
	t.Cleanup(e.stop)
	return e
}

func (e *inside) stop() {
	e.l.Close()
	e.cut()
	e.serving.Wait()
}

// serve answers until the client has said everything.
func (e *inside) serve(conn net.Conn) {
	defer conn.Close()
	if _, err := stream.ReadOpening(conn); err != nil {
		return
	}
	for r := bufio.NewReader(conn); ; {
		if _, err := http.ReadRequest(r); err != nil {
			return
		}
		text := e.cid.String()
		if _, err := fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text); err != nil {
			return
		}
	}
}

// A visitor is a client with a connection of its own.
type visitor struct {
	*http.Client
	url string
}

func visit(t *testing.T, at string) visitor {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return visitor{&http.Client{Transport: transport, Timeout: patience}, "http://" + at + "/"}
}

// ask returns the CID that answers.
func (v visitor) ask(t *testing.T, host string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, v.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	resp, err := v.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestSeveralEnclaves: routing by name, failover, and the way out of service.
func TestSeveralEnclaves(t *testing.T) {
	t.Parallel()
	s := startHost(t, "--publish", "127.0.0.1:0=stream:1443@16,17")
	at := s.published(t)[0]
	first := startInside(t, s.dir, 16)
	startInside(t, s.dir, 17)
	startInside(t, s.dir, 18)
	s.ctl(t, 0, "add", "route", at+"/a.example@18")

	stays := visit(t, at)
	if got := stays.ask(t, "a.example"); got != "18" {
		t.Errorf("a.example is CID %s", got)
	}
	s.ctl(t, 0, "set", "route", at+"/b.example@18")
	a, b := visit(t, at), visit(t, at)
	if x, y := a.ask(t, "c.example"), b.ask(t, "c.example"); x+y != "1617" && x+y != "1716" {
		t.Errorf("two clients went to %s and %s", x, y)
	}

	// Out of service: the connection goes on, others go elsewhere, and its end is told.
	s.ctl(t, 0, "drain", "16")
	for range 3 {
		c := visit(t, at)
		if got := c.ask(t, "c.example"); got != "17" {
			t.Errorf("a new client went to CID %s", got)
		}
		c.CloseIdleConnections()
	}
	onFirst := a
	if a.ask(t, "c.example") != "16" {
		onFirst = b
	}
	if got := onFirst.ask(t, "c.example"); got != "16" {
		t.Errorf("the connection went on to CID %s", got)
	}
	s.ctl(t, 0, "resume", "16")
	a.CloseIdleConnections()
	b.CloseIdleConnections()
	if got := stays.ask(t, "a.example"); got != "18" {
		t.Errorf("a connection that nobody touched went to CID %s", got)
	}

	// One that dies is noticed, and one that comes back.
	first.stop()
	s.log.await(t, "enclave is down")
	startInside(t, s.dir, 16)
	s.log.await(t, "enclave is up")
	if got := s.ctl(t, 0, "enclaves"); !strings.Contains(got, "17   up") || !strings.Contains(got, "warming") {
		t.Errorf("enclaves:\n%s", got)
	}
	stays.CloseIdleConnections()
	if got := s.ctl(t, 0, "drain", "18", "--wait"); !strings.Contains(got, "no connection any more") {
		t.Errorf("drain says:\n%s", got)
	}
}

// TestHangup: SIGHUP applies what changed in the file, or nothing.
func TestHangup(t *testing.T) {
	file := filepath.Join(t.TempDir(), "host.toml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := startHost(t, "--config", file)
	s.ctl(t, 0, "list") // the signal is awaited before the API is served
	write("idle-timeout = \"2h\"")
	s.log.await(t, "configuration changed")
	write("idle-timeout = \"1ms\"\nmtu = 1400")
	if m := s.log.await(t, "configuration not changed"); !strings.Contains(fmt.Sprint(m["err"]), "1ms") {
		t.Errorf("the log says %v", m)
	}
	if got := s.ctl(t, 0, "get", "idle-timeout"); got != "2h\n" {
		t.Errorf("idle-timeout is %s", got)
	}
}

// TestCtl goes through the commands.
func TestCtl(t *testing.T) {
	t.Parallel()
	s := startHost(t, "--publish", "127.0.0.1:0=stream:1443@16")
	at := s.published(t)[0]
	file := filepath.Join(t.TempDir(), "x.toml")
	if err := os.WriteFile(file, []byte(`slow-start = "3s"`), 0o600); err != nil {
		t.Fatal(err)
	}
	patch := filepath.Join(t.TempDir(), "x.json")
	if err := os.WriteFile(patch, []byte(`[{"op":"set","setting":"idle-timeout","values":["3h"]},{"op":"add","setting":"drain","values":["16"]}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	_, revision, _ := strings.Cut(strings.TrimSpace(s.ctl(t, 0, "list", "publish")), "# revision ")
	revision, _, _ = strings.Cut(revision, "\n")
	for _, tt := range []struct {
		args string
		code int
		want string
	}{
		{"", 2, "no command"}, {"nonsense", 2, "unknown command"}, {"get", 2, "takes one word"}, {"set x", 2, "at least 2 words"}, {"reload x", 2, "takes nothing"},
		{"list a b", 2, "takes 0 to 1 words"}, {"get --nope", 2, "unknown flag"}, {"list --control", 2, "needs a value"}, {"--help", 0, "usage: host ctl"},
		{"apply /does/not/exist", 1, "no such file"}, {"patch /does/not/exist", 1, "no such file"}, {"patch " + file, 1, "not a JSON array"},
		{"--control unix:/does/not/exist list", 1, "is the host running?"},
		{"set idle-timeout 1ms", 1, "nothing has changed"}, {"reload", 1, "without a file"}, {"--revision 0-0 set idle-timeout 2h", 1, "another one by now"},
		{"get publish", 0, at + "=stream:1443@16\n"}, {"list idle-timeout", 0, "idle-timeout = \"1h\"\n"},
		{"--dry-run set idle-timeout 2h", 0, "set idle-timeout 2h\n# revision " + revision},
		{"--revision " + revision + " set idle-timeout 2h", 0, "set idle-timeout 2h\n"},
		{"diff " + file, 0, "set idle-timeout 1h\nset slow-start 3s\n"},
		{"get idle-timeout", 0, "2h\n"}, {"apply " + file, 0, "set idle-timeout 1h"}, {"get slow-start", 0, "3s\n"},
		{"patch " + patch, 0, "add drain 16\nset idle-timeout 3h\n"}, {"list drain", 0, "drain = \"16\"\n"},
		{"drain 16", 1, "is there already"}, {"drain 18 --wait", 0, "CID 18 has no connection any more"}, {"list drain", 0, "drain = [\n  \"16\",\n  \"18\",\n]\n"},
		{"enclaves", 0, "true"}, {"status", 0, at + "=stream:1443@16"}, {"remove drain", 0, "remove drain 16\nremove drain 18"},
	} {
		if got := s.ctl(t, tt.code, strings.Fields(tt.args)...); !strings.Contains(got, tt.want) {
			t.Errorf("host ctl %s says\n%s, want %q", tt.args, got, tt.want)
		}
	}
	// Not everything that reaches the socket is host ctl.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", strings.TrimPrefix(s.control, "unix:"))
	}}, Timeout: time.Minute}
	for path, want := range map[string]int{"/v1/enclaves/x/idle": 400, "/v1/config": 405, "/v1/config/reload": 409} {
		resp, err := client.Post("http://host"+path, "", nil)
		if err == nil && strings.HasSuffix(path, "idle") {
			resp.Body.Close()
			resp, err = client.Get("http://host" + path)
		}
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %s, want %d", path, resp.Status, want)
		}
	}
}
