package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corridor-enclave/corridor/bench/sampleapp"
)

func TestImpairRefusesWhatItCannotDo(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, "both are needed"},
		{[]string{"--listen", "udp:x", "--dial", "tcp:"}, "neither tcp:HOST:PORT nor unix:PATH"},
		{[]string{"--line", "delay=soon"}, `"delay=soon": `},
		{[]string{"--listen", "tcp:127.0.0.1:0", "--dial", "tcp:127.0.0.1:1", "--uplink", "loss=1%"}, "a stream loses"},
	} {
		code, _, stderr := bench(t, append([]string{"impair"}, tt.args...)...)
		if code != exitUsage || !strings.Contains(stderr, tt.want) {
			t.Errorf("bench impair %q: exit %d, %q; want %d and %q", tt.args, code, stderr, exitUsage, tt.want)
		}
	}
}

// A background is a command that runs until it is stopped.
type background struct {
	lines *bufio.Scanner
	stop  func() int // returns the exit code
}

func start(t *testing.T, args ...string) background {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		code := run(ctx, args, nil, w, w)
		_ = w.Close()
		ended <- code
	}()
	stop := func() int {
		cancel()
		_, _ = io.Copy(io.Discard, r)
		return <-ended
	}
	return background{bufio.NewScanner(r), stop}
}

// next reads the next line that the command prints.
func (b background) next(t *testing.T) map[string]any {
	t.Helper()
	var fields map[string]any
	if !b.lines.Scan() || json.Unmarshal(b.lines.Bytes(), &fields) != nil {
		t.Fatalf("printed %q, %v", b.lines.Text(), b.lines.Err())
	}
	return fields
}

func TestImpairRelaysHTTP(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: sampleapp.New()}
	go func() { _ = srv.Serve(l) }()
	defer srv.Close()

	cmd := start(t, "impair", "--listen", "tcp:127.0.0.1:0", "--dial", "unix:"+path, "--line", "delay=1ms", "--downlink", "rate=100Mbit")
	addr := cmd.next(t)["addr"]
	code, stdout, stderr := bench(t, "load", "--rate", "100", "--warmup", "0s", "--duration", "50ms", "--patience", "1m", "--connections", "1", fmt.Sprintf("http://%s/hello", addr))
	if code != exitOK || !strings.Contains(stdout, "5 OK") {
		t.Errorf("through the line: exit %d, %s%s", code, stdout, stderr)
	}
	if ended := cmd.next(t); ended["how"] != "whole" || !strings.HasPrefix(fmt.Sprint(ended["uplink"]), "5 packets") {
		t.Errorf("the line says %v", ended)
	}
	if code := cmd.stop(); code != exitOK {
		t.Errorf("stopped with exit %d", code)
	}
}

func TestImpairSaysWhenNobodyListens(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "nobody.sock")
	cmd := start(t, "impair", "--frames", "--listen", "tcp:127.0.0.1:0", "--dial", "unix:"+path)
	conn, err := net.Dial("tcp", fmt.Sprint(cmd.next(t)["addr"]))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if ended := cmd.next(t); !strings.Contains(fmt.Sprint(ended["how"]), "nobody.sock") {
		t.Errorf("the line says %v", ended)
	}
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("the connection is open: %d, %v", n, err)
	}
	if code := cmd.stop(); code != exitOK {
		t.Errorf("stopped with exit %d", code)
	}
}
