package loadgen_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/bench/binaries"
	"github.com/corridor-enclave/corridor/bench/loadgen"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

type parser func([]byte) (loadgen.Result, error)

func recorded(t testing.TB, name string) string {
	t.Helper()
	out, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// The recordings are outputs of the pinned versions, unchanged.
func TestParseRecorded(t *testing.T) {
	t.Parallel()
	tests := []struct {
		file  string
		parse parser
		want  loadgen.Result // latencies are looked at below
		clean bool
	}{
		{file: "bombardier-refused.json", parse: loadgen.ParseBombardier, want: loadgen.Result{Requests: 20, Errors: 20, Duration: 1375167}},
		{file: "bombardier-500.json", parse: loadgen.ParseBombardier, want: loadgen.Result{Requests: 20, NotOK: 20, Duration: 3599106}},
		{file: "bombardier-clean.json", parse: loadgen.ParseBombardier, want: loadgen.Result{Requests: 1000, OK: 1000, Duration: 88239112}, clean: true},
		{file: "baton-refused.txt", parse: loadgen.ParseBaton, want: loadgen.Result{Requests: 10, Errors: 10, Duration: 593211}},
		{file: "baton-500.txt", parse: loadgen.ParseBaton, want: loadgen.Result{Requests: 10, NotOK: 10, Duration: 3720586}},
		{file: "baton-clean.txt", parse: loadgen.ParseBaton, want: loadgen.Result{Requests: 1000, OK: 1000, Duration: 52874926}, clean: true},
		{file: "baton-duration.txt", parse: loadgen.ParseBaton, want: loadgen.Result{Requests: 20230, OK: 20230, Duration: 1000513491}, clean: true},
		{file: "wrk-404.txt", parse: loadgen.ParseWrk, want: loadgen.Result{Requests: 46186, NotOK: 46186, Duration: 1099952130}},
		{file: "wrk-resets.txt", parse: loadgen.ParseWrk, want: loadgen.Result{Requests: 36671, OK: 34926, Errors: 1745, Duration: 1099455969}},
		{file: "wrk-clean.txt", parse: loadgen.ParseWrk, want: loadgen.Result{Requests: 45378, OK: 45378, Duration: 1100230093}, clean: true},
		{file: "hey-refused.txt", parse: loadgen.ParseHey, want: loadgen.Result{Requests: 3206, Errors: 3206, Duration: 1070200 * time.Microsecond}},
		{file: "hey-404.txt", parse: loadgen.ParseHey, want: loadgen.Result{Requests: 4090, NotOK: 4090, Duration: 1000700 * time.Microsecond}},
		{file: "hey-clean.txt", parse: loadgen.ParseHey, want: loadgen.Result{Requests: 12076, OK: 12076, Duration: 1006200 * time.Microsecond}, clean: true},
	}
	for _, tt := range tests {
		t.Run(tt.file, func(t *testing.T) {
			t.Parallel()
			got, err := tt.parse([]byte(recorded(t, tt.file)))
			if err != nil {
				t.Fatal(err)
			}
			if clean := got.Clean() == nil; clean != tt.clean {
				t.Errorf("Clean: %v", got.Clean())
			}
			if want := float64(tt.want.OK) / tt.want.Duration.Seconds(); got.Rate() != want {
				t.Errorf("Rate = %v, want %v", got.Rate(), want)
			}
			got.Latency = loadgen.Latency{}
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestParseLatency(t *testing.T) {
	t.Parallel()
	tests := []struct {
		file  string
		parse parser
		want  loadgen.Latency
	}{
		{"bombardier-clean.json", loadgen.ParseBombardier, loadgen.Latency{
			Mean: 1373484 * time.Nanosecond, Max: 5950 * time.Microsecond,
			P50: 1095 * time.Microsecond, P90: 2197 * time.Microsecond, P99: 5398 * time.Microsecond,
		}},
		{"baton-clean.txt", loadgen.ParseBaton, loadgen.Latency{Mean: 220 * time.Microsecond, Max: 2 * time.Millisecond}},
		{"baton-duration.txt", loadgen.ParseBaton, loadgen.Latency{}},
		{"wrk-clean.txt", loadgen.ParseWrk, loadgen.Latency{
			Mean: 177150, Max: 6550 * time.Microsecond, P50: 78 * time.Microsecond, P90: 204 * time.Microsecond, P99: 2760 * time.Microsecond,
		}},
		{"hey-refused.txt", loadgen.ParseHey, loadgen.Latency{}},
		{"hey-clean.txt", loadgen.ParseHey, loadgen.Latency{
			Mean: 700 * time.Microsecond, Max: 50800 * time.Microsecond, P50: 500 * time.Microsecond, P90: 1100 * time.Microsecond, P99: 4300 * time.Microsecond,
		}},
	}
	for _, tt := range tests {
		t.Run(tt.file, func(t *testing.T) {
			t.Parallel()
			got, err := tt.parse([]byte(recorded(t, tt.file)))
			if err != nil || got.Latency != tt.want {
				t.Fatalf("got %+v, %v; want %+v", got.Latency, err, tt.want)
			}
		})
	}
}

// TestParseRefusesMalformed changes one thing in a good recording at a time.
func TestParseRefusesMalformed(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, file, old, new string
		parse                parser
	}{
		{"not JSON", "bombardier-clean.json", `{"spec"`, `spec`, loadgen.ParseBombardier},
		{"cut off", "bombardier-clean.json", `}}}`, ``, loadgen.ParseBombardier},
		{"two reports", "bombardier-clean.json", `}}}`, `}}}{}`, loadgen.ParseBombardier},
		{"no result", "bombardier-clean.json", `"result"`, `"outcome"`, loadgen.ParseBombardier},
		{"no time", "bombardier-clean.json", `"timeTakenSeconds"`, `"time"`, loadgen.ParseBombardier},
		{"no count of failures", "bombardier-clean.json", `"others":0,`, ``, loadgen.ParseBombardier},
		{"a negative count", "bombardier-clean.json", `"others":0`, `"others":-1`, loadgen.ParseBombardier},
		{"no time at all", "bombardier-clean.json", `"timeTakenSeconds":0.088239112`, `"timeTakenSeconds":0`, loadgen.ParseBombardier},
		{"no total", "baton-clean.txt", "Total requests:", "Requests:", loadgen.ParseBaton},
		{"parts do not add up", "baton-clean.txt", "2xx responses:                         1000", "2xx responses: 999", loadgen.ParseBaton},
		{"no count of failures", "baton-clean.txt", "Number of connection errors:", "", loadgen.ParseBaton},
		{"a count twice", "baton-clean.txt", "Number of 3xx", "Number of 2xx", loadgen.ParseBaton},
		{"no unit of time", "baton-clean.txt", "52.874926ms", "52", loadgen.ParseBaton},
		{"a word for a latency", "baton-clean.txt", "0.22", "fast", loadgen.ParseBaton},
		{"half of the latencies", "baton-clean.txt", "Max response", "Worst response", loadgen.ParseBaton},
		{"no total", "wrk-clean.txt", "requests in", "answers in", loadgen.ParseWrk},
		{"no rate", "wrk-clean.txt", "Requests/sec", "Rate", loadgen.ParseWrk},
		{"nothing answered", "wrk-clean.txt", "41244.10", "0.00", loadgen.ParseWrk},
		{"a total twice", "wrk-clean.txt", "Requests/sec", "  1 requests in 1s\nRequests/sec", loadgen.ParseWrk},
		{"more failures than answers", "wrk-404.txt", "responses: 46186", "responses: 46187", loadgen.ParseWrk},
		{"no unit of latency", "wrk-clean.txt", "2.76ms", "2.76", loadgen.ParseWrk},
		{"no time", "hey-clean.txt", "Total:", "Sum:", loadgen.ParseHey},
		{"a time twice", "hey-clean.txt", "  Slowest:", "  Total:\t1.0000 secs\n  Slowest:", loadgen.ParseHey},
		{"no unit of time", "hey-clean.txt", "1.0062 secs", "1.0062", loadgen.ParseHey},
		{"no statuses", "hey-clean.txt", "Status code distribution", "Codes", loadgen.ParseHey},
		{"a status of words", "hey-clean.txt", "[200]", "[good]", loadgen.ParseHey},
		{"a count of words", "hey-refused.txt", "[3206]", "[many]", loadgen.ParseHey},
		{"no percentile", "wrk-clean.txt", "  90%", "  95%", loadgen.ParseWrk},
	}
	for _, tt := range tests {
		t.Run(tt.file+" "+tt.name, func(t *testing.T) {
			t.Parallel()
			good := recorded(t, tt.file)
			if !strings.Contains(good, tt.old) {
				t.Fatalf("the recording has no %q to change", tt.old)
			}
			if got, err := tt.parse([]byte(strings.Replace(good, tt.old, tt.new, 1))); err == nil {
				t.Fatalf("accepted as %+v", got)
			}
		})
	}
	for name, parse := range map[string]parser{"wrk": loadgen.ParseWrk, "bombardier": loadgen.ParseBombardier, "baton": loadgen.ParseBaton, "hey": loadgen.ParseHey} {
		if got, err := parse(nil); err == nil {
			t.Errorf("%s: nothing was accepted as %+v", name, got)
		}
	}
}

func TestLoadIsChecked(t *testing.T) {
	t.Parallel()
	good := loadgen.Load{URL: "http://127.0.0.1:1/", Connections: 1, Requests: 1}
	tests := []struct {
		name string
		load func(l *loadgen.Load)
		run  func(context.Context, string, loadgen.Load) (loadgen.Result, error)
		want string
	}{
		{"no host", func(l *loadgen.Load) { l.URL = "http://" }, loadgen.Bombardier, "not an http"},
		{"no connections", func(l *loadgen.Load) { l.Connections = 0 }, loadgen.Baton, "0 connections"},
		{"requests and duration", func(l *loadgen.Load) { l.Duration = time.Second }, loadgen.Bombardier, "one of them"},
		{"neither", func(l *loadgen.Load) { l.Requests = 0 }, loadgen.Baton, "one of them"},
		{"half a second", func(l *loadgen.Load) { l.Requests, l.Duration = 0, time.Second/2 }, loadgen.Baton, "whole seconds"},
		{"more than baton can", func(l *loadgen.Load) { l.Connections = 513 }, loadgen.Baton, "513 connections"},
		{"fresh ones from baton", func(l *loadgen.Load) { l.Fresh = true }, loadgen.Baton, "cannot open a connection for each"},
		{"a number for wrk", func(*loadgen.Load) {}, loadgen.Wrk, "runs for a duration"},
		{"no generator", func(*loadgen.Load) {}, loadgen.Bombardier, "no-such-program"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := good
			tt.load(&l)
			_, err := tt.run(t.Context(), filepath.Join(t.TempDir(), "no-such-program"), l)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

// TestIntegrationGeneratorsCount lets the two that count requests generators loose on a server that
// counts for itself.
func TestIntegrationGeneratorsCount(t *testing.T) {
	t.Parallel()
	generators := map[binaries.Program]func(context.Context, string, loadgen.Load) (loadgen.Result, error){
		binaries.Bombardier: loadgen.Bombardier, binaries.Baton: loadgen.Baton,
	}
	for program, generate := range generators {
		path, err := binaries.Build(t.Context(), t.TempDir(), program)
		if err != nil {
			t.Fatal(err)
		}
		for _, connections := range []int{1, 16} {
			t.Run(fmt.Sprintf("%s %d", program, connections), func(t *testing.T) {
				t.Parallel()
				var served atomic.Int64
				server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served.Add(1) }))
				defer server.Close()
				r, err := generate(t.Context(), path, loadgen.Load{URL: server.URL, Connections: connections, Requests: 200, Insecure: true})
				if err != nil {
					t.Fatal(err)
				}
				if err := r.Clean(); err != nil || r.OK != 200 || served.Load() != 200 {
					t.Fatalf("%d counted, %d served, want 200 each: %v", r.OK, served.Load(), err)
				}
			})
		}
	}
}

// TestIntegrationFresh: a connection for each request is what it says.
func TestIntegrationFresh(t *testing.T) {
	t.Parallel()
	path, err := binaries.Build(t.Context(), t.TempDir(), binaries.Bombardier)
	if err != nil {
		t.Fatal(err)
	}
	server, opened := countingServer(t)
	r, err := loadgen.Bombardier(t.Context(), path, loadgen.Load{URL: server.URL, Connections: 4, Requests: 100, Fresh: true})
	if err == nil {
		err = r.Clean()
	}
	if err != nil || opened.Load() != 100 {
		t.Errorf("%d connections for %d requests, %v", opened.Load(), r.Requests, err)
	}
}

func TestIntegrationFreshByWrk(t *testing.T) {
	t.Parallel()
	path, err := exec.LookPath("wrk")
	tapstacktest.Require(t, err, "wrk", "make deps, or apt-get install wrk")
	server, opened := countingServer(t)
	r, err := loadgen.Wrk(t.Context(), path, loadgen.Load{URL: server.URL, Connections: 4, Duration: time.Second, Fresh: true})
	if err == nil {
		err = r.Clean()
	}
	// Those that were under way at the end are opened and not counted.
	if n := opened.Load(); err != nil || r.OK == 0 || n < r.OK || n > r.OK+2*4 {
		t.Errorf("%d connections for %d requests, %v", n, r.OK, err)
	}
}

// countingServer counts its connections.
func countingServer(t *testing.T) (*httptest.Server, *atomic.Int64) {
	t.Helper()
	opened := new(atomic.Int64)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			opened.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	return server, opened
}

// Whatever a generator prints, what is accepted adds up.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.*")
	if err != nil || len(files) == 0 {
		f.Fatalf("no recordings to start from: %v", err)
	}
	for _, name := range files {
		f.Add([]byte(recorded(f, filepath.Base(name))))
	}
	f.Fuzz(func(t *testing.T, out []byte) {
		for _, parse := range []parser{loadgen.ParseBombardier, loadgen.ParseBaton, loadgen.ParseWrk, loadgen.ParseHey} {
			r, err := parse(out)
			if err != nil {
				continue
			}
			if r.OK < 0 || r.NotOK < 0 || r.Errors < 0 || r.OK+r.NotOK+r.Errors != r.Requests || r.Duration <= 0 {
				t.Fatalf("accepted %+v from %q", r, out)
			}
		}
	})
}

// TestParseWrkSeconds: wrk fills a unit of one letter up with a blank.
func TestParseWrkSeconds(t *testing.T) {
	t.Parallel()
	good := recorded(t, "wrk-clean.txt")
	slow := strings.Replace(good, "     99%    2.76ms\n", "     99%    1.04s \n", 1)
	if slow == good {
		t.Fatal("the recording has no such line to change")
	}
	if r, err := loadgen.ParseWrk([]byte(slow)); err != nil || r.Latency.P99 != 1040*time.Millisecond {
		t.Errorf("%v, %v", r.Latency.P99, err)
	}
}
