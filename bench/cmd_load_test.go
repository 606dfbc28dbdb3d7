package main

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corridor-enclave/corridor/bench/report"
	"github.com/corridor-enclave/corridor/bench/sampleapp"
)

// bench runs one command as a user would.
func bench(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, nil, &out, &errs)
	return code, out.String(), errs.String()
}

func TestLoadRefusesWhatItCannotDo(t *testing.T) {
	t.Parallel()
	const url = "http://127.0.0.1:1/"
	tests := []struct {
		args []string
		want string
	}{
		{[]string{"load"}, "no URL"},
		{[]string{"load", "--rate", "0", url}, "not above zero"},
		{[]string{"load", "--rate", "fast", "--arrivals", "often", "--timeout", "-1s", url}, `--arrivals "often": none of uniform`},
		{[]string{"load", "--body", "-1", url}, "not a number from 0"},
		{[]string{"load", "--via", "tcp", url}, "none of tcp:HOST:PORT"},
		{[]string{"load", "--via", "vsock:x:1", url}, `"x:1" is not CID:PORT`},
		{[]string{"load", "--via", "dir:/run", url}, "none of tcp:HOST:PORT"},
	}
	for _, tt := range tests {
		code, _, stderr := bench(t, tt.args...)
		if code != exitUsage || !strings.Contains(stderr, tt.want) {
			t.Errorf("bench %q: exit %d, %q; want %d and %q", tt.args, code, stderr, exitUsage, tt.want)
		}
	}
}

func TestLoadFailsWithTheTarget(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	code, stdout, stderr := bench(t, "load", "--rate", "100", "--warmup", "0s", "--duration", "50ms", "--connections", "2", s.URL)
	if code != exitFailed || !strings.Contains(stderr, "404") || !strings.Contains(stdout, " 0 OK, 5 failed") {
		t.Errorf("exit %d, %q, %q; want a failure that names the status", code, stdout, stderr)
	}
}

func TestLoadByEveryWay(t *testing.T) {
	t.Parallel()
	app := sampleapp.New()
	tcp := httptest.NewServer(app)
	defer tcp.Close()
	dir := t.TempDir()
	for _, name := range []string{"app.sock", "16_1443.sock"} {
		l, err := net.Listen("unix", filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: app}
		go func() { _ = srv.Serve(l) }()
		defer srv.Close()
	}
	ways := []string{"", "tcp:" + tcp.Listener.Addr().String(), "unix:" + filepath.Join(dir, "app.sock"), "dir:" + dir + ":16:1443"}
	for i, via := range ways {
		args := []string{"load", "--rate", "200", "--arrivals", "burst", "--burst", "5", "--warmup", "0s", "--duration", "50ms", "--patience", "1m", "--json", "--connections", "3"}
		if via != "" {
			args = append(args, "--via", via)
		}
		code, stdout, stderr := bench(t, append(args, tcp.URL+"/hello")...)
		var sample report.Sample
		if err := json.Unmarshal([]byte(stdout), &sample); err != nil || code != exitOK {
			t.Errorf("via %q: exit %d, %v, %s", via, code, err, stderr)
			continue
		}
		if served := app.Hellos(); sample.OK != 10 || served != uint64(10*(i+1)) || sample.Values[report.P99] <= 0 {
			t.Errorf("via %q: %+v, served %d in all", via, sample, served)
		}
	}
}

func TestLoadInAClosedLoopPrintsATable(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(sampleapp.New())
	defer s.Close()
	code, stdout, stderr := bench(t, "load", "--warmup", "0s", "--duration", "50ms", "--connections", "1", "--body", "100", s.URL+"/echo")
	for _, want := range []string{"0 failed", "p99.9", "latency, from", "service, from"} {
		if code != exitOK || !strings.Contains(stdout, want) {
			t.Errorf("exit %d, %s%s; want %q", code, stdout, stderr, want)
		}
	}
}
