package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/netstack/netstacktest"
	"github.com/corridor-enclave/corridor/tapstack/simvsock"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

const patience = 20 * time.Second

func TestUsage(t *testing.T) {
	t.Parallel()
	var stdout, stderr strings.Builder
	if code := run(t.Context(), []string{"--mtu", "9", "--nope"}, nil, &stdout, &stderr); code != exitUsage {
		t.Errorf("exit code %d, want %d", code, exitUsage)
	}
	for _, want := range []string{"--nope: unknown flag", `--mtu "9"`, "--help"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("stderr does not say %q:\n%s", want, &stderr)
		}
	}
	stderr.Reset()
	if code := run(t.Context(), []string{"--help"}, nil, &stdout, &stderr); code != exitStopped || !strings.HasPrefix(stdout.String(), "usage: host") || stderr.Len() > 0 {
		t.Errorf("help: exit code %d\n%s%s", code, &stdout, &stderr)
	}
}

func TestWhatCannotBeOpenedIsOneLine(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"a busy port":       {[]string{"--publish", busy.Addr().String() + "=link:443", "--control", "off"}, "in use by another program"},
		"a control folder":  {[]string{"--control", "unix:/dev/null/x"}, "choose another with --control"},
		"a VSOCK folder":    {[]string{"--vsock", "dir:/dev/null/x", "--control", "off"}, "mkdir /dev/null"},
		"a port of another": {[]string{"--publish", "192.0.2.1:1=link:443", "--control", "off"}, "does not have this address"},
	} {
		var stderr strings.Builder
		args := append([]string{"--vsock", "dir:" + dir}, tt.args...)
		if code := run(t.Context(), args, nil, io.Discard, &stderr); code != exitFailed {
			t.Errorf("%s: exit code %d, want %d", name, code, exitFailed)
		}
		lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
		var last struct{ Level, Err string }
		if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || last.Level != "ERROR" || !strings.Contains(last.Err, tt.want) {
			t.Errorf("%s: the last line is %s, want an error with %q", name, lines[len(lines)-1], tt.want)
		}
	}
}

// records are the log lines of a run.
type records chan map[string]any

func (r records) Write(line []byte) (int, error) {
	var m map[string]any
	if err := json.Unmarshal(line, &m); err != nil {
		return 0, err
	}
	r <- m
	return len(line), nil
}

func (r records) await(t *testing.T, msg string) map[string]any {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case m := <-r:
			if m["msg"] == msg {
				return m
			}
		case <-timeout:
			t.Fatalf("no %q in the log", msg)
		}
	}
}

// TestTheWholeHost runs it with an enclave in memory: a client's connection in,
// and the end in order.
func TestTheWholeHost(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	dir, log := t.TempDir(), make(records, 256)
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"--vsock", "dir:" + dir, "--publish", "127.0.0.1:0=link:443", "--control", "unix:" + filepath.Join(dir, "c.sock"),
			"--drain-timeout", "20s"}, nil, io.Discard, log)
	}()
	at := log.await(t, "published")["addr"].(string)

	transport, err := simvsock.Dir(dir, 16)
	if err != nil {
		t.Fatal(err)
	}
	for { // the link is open a moment after the ports
		if m := log.await(t, "listening"); m["part"] == "link" {
			break
		}
	}
	link, err := transport.Dial(ctx, vsockconn.Addr{CID: vsockconn.CIDParent, Port: tapstack.LinkPort})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(link, "POST /connect HTTP/1.1\r\nHost: \r\nContent-Length: 0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	e := netstacktest.NewEnclave(t)
	l, err := e.ListenTCP(443)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var carrying sync.WaitGroup
	carrying.Go(func() { e.Carry(link) })

	// The link's own API is there, and read-only.
	api, err := e.DialTCP(ctx, netip.AddrPortFrom(tapstack.GatewayAddr(), 80))
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(api, "POST /services/forwarder/expose HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}")
	if got, err := io.ReadAll(api); err != nil || !strings.Contains(string(got), "403 Forbidden") {
		t.Errorf("expose from inside: %q, %v", got, err)
	}
	api.Close()

	client, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	inside, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	stop()
	log.await(t, "draining")
	if _, err := io.WriteString(inside, "the last answer"); err != nil {
		t.Fatal(err)
	}
	inside.Close()
	if got, err := io.ReadAll(client); err != nil || string(got) != "the last answer" {
		t.Errorf("the client got %q, %v while the host stops", got, err)
	}
	client.Close()
	if got := <-code; got != exitStopped {
		t.Errorf("exit code %d, want %d", got, exitStopped)
	}
	carrying.Wait()
}
