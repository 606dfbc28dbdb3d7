package measure

import (
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/corridor-enclave/corridor/bench/hops"
	"github.com/corridor-enclave/corridor/bench/ledger"
	"github.com/corridor-enclave/corridor/bench/report"
	"github.com/corridor-enclave/corridor/bench/sampleapp"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

// TestFailuresAreNamed: a sample in which anything went wrong has no figures, and
// says what it was.
func TestFailuresAreNamed(t *testing.T) {
	t.Parallel()
	wrk, err := exec.LookPath("wrk")
	tapstacktest.Require(t, err, "wrk", "apt-get install wrk")
	failing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }))
	defer failing.Close()
	d := drivers{paths: map[string]string{"wrk": wrk, "iperf3": "/no/such/iperf3"}}
	load := report.Load{Name: "test", Generator: "wrk", Kind: report.Requests, Connections: 2}
	self := []ledger.Account{{Name: "self", Role: report.Subject, PID: os.Getpid()}}
	tests := []struct {
		name    string
		load    report.Load
		running hops.Running
		want    string
	}{
		{"only 502", load, hops.Running{URL: failing.URL, Accounts: self}, "another status"},
		{"nobody there", load, hops.Running{URL: "http://127.0.0.1:0/", Accounts: self}, "unable to connect"},
		{"a process that died", load, hops.Running{URL: failing.URL, Accounts: []ledger.Account{{Name: "ghost", PID: 1 << 30}}}, "ghost"},
		{"no generator", report.Load{Name: "bulk", Generator: "iperf3", Kind: report.Bulk, Connections: 1}, hops.Running{Bulk: "127.0.0.1:1", Accounts: self}, "no/such/iperf3"},
		{"no flow to be beside", report.Load{Name: "beside", Generator: "openloop", Kind: report.Requests, Connections: 1, Mode: report.BesideBulk}, hops.Running{URL: "http://127.0.0.1:1", Bulk: "127.0.0.1:1", Accounts: self}, "no/such/iperf3"},
	}
	for _, tt := range tests {
		s := d.sample(t.Context(), cell{&report.Result{Load: tt.load}, &tt.running}, 1)
		if !strings.Contains(s.Failure, tt.want) || s.Values != nil {
			t.Errorf("%s: failure %q, values %v; want one with %q", tt.name, s.Failure, s.Values, tt.want)
		}
	}
}

// TestGeneratorStandsIn: without wrk its loads go to bombardier, or to our own, and
// are called so.
func TestGeneratorStandsIn(t *testing.T) {
	t.Parallel()
	missing := &hops.Missing{What: "wrk", Remedy: "make deps"}
	tests := []struct {
		have map[string]string
		ask  string
		want string
	}{
		{map[string]string{"wrk": "/wrk", "bombardier": "/b"}, "wrk", "wrk"},
		{map[string]string{"bombardier": "/b"}, "wrk", "bombardier"},
		{map[string]string{"bombardier": "/b", "openloop": "/o"}, "wrk", "bombardier"},
		{map[string]string{"openloop": "/o"}, "wrk", "openloop"},
		{map[string]string{}, "wrk", ""},
		{map[string]string{"wrk": "/wrk"}, "iperf3", ""},
	}
	for _, tt := range tests {
		d := drivers{paths: tt.have, errs: map[string]error{"wrk": missing, "iperf3": missing}}
		got, err := d.generator(report.Load{Generator: tt.ask})
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%s of %v: %q, %v; want %q", tt.ask, tt.have, got, err, tt.want)
		}
	}
}

// TestWarnings: each thing that makes a figure doubtful has its sentence.
func TestWarnings(t *testing.T) {
	t.Parallel()
	r := &run{plan: Plan{Rounds: 2, Hops: []hops.Hop{{Name: "proxy"}}}, progress: silent{}, report: &report.Report{
		Source: report.Source{Changed: true},
		Results: []report.Result{{
			Hop: "proxy", Variant: "corridor", Load: report.Load{Name: "one"},
			Samples: []report.Sample{{Foreign: 0.5}, {Failure: "reset"}},
			Summary: map[report.Metric]report.Summary{report.CPU: {N: 1, Median: 1, Spread: 0.5, Noisy: true}},
		}},
	}}
	r.warn()
	all := strings.Join(r.report.Warnings, "\n")
	for _, want := range []string{"1 of 2 samples failed", "too noisy to tell: cpu", "not ours alone: in 1 of 2", "had changes", "too few"} {
		if !strings.Contains(all, want) {
			t.Errorf("no warning has %q:\n%s", want, all)
		}
	}
}

type silent struct{}

func (silent) Note(string)           {}
func (silent) Step(int, int, string) {}

// TestCheckedBulk: what arrives changed is a failure, however fast it came.
func TestCheckedBulk(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(sampleapp.New())
	defer server.Close()
	lying := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, checkedBlock)) }))
	defer lying.Close()
	load := report.Load{Name: "checked", Generator: hops.Checked, Kind: report.Bulk, Connections: 2}
	self := []ledger.Account{{Name: "self", Role: report.Subject, PID: os.Getpid()}}
	d := drivers{}
	for _, tt := range []struct{ name, url, want string }{
		{"changed on the way", lying.URL, "SHA-256"},
		{"nobody there", "http://127.0.0.1:0/", "refused"},
	} {
		s := d.sample(t.Context(), cell{&report.Result{Load: load}, &hops.Running{URL: tt.url, Accounts: self}}, 1)
		if !strings.Contains(s.Failure, tt.want) || s.Values != nil {
			t.Errorf("%s: failure %q, values %v", tt.name, s.Failure, s.Values)
		}
	}
	s := d.sample(t.Context(), cell{&report.Result{Load: load}, &hops.Running{URL: server.URL + "/hello", Accounts: self}}, 1)
	if s.Failure != "" || s.Bytes != s.OK*checkedBlock || s.Values[report.Throughput] <= 0 {
		t.Errorf("%+v", s)
	}
}

// TestHold: connections that cannot be had are no figure, nor is memory that shrank;
// those that can be stay open until they have been looked at.
func TestHold(t *testing.T) {
	t.Parallel()
	failing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }))
	defer failing.Close()
	var open, most atomic.Int64
	app := httptest.NewUnstartedServer(sampleapp.New())
	app.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			most.Store(max(most.Load(), open.Add(1)))
		case http.StateClosed:
			open.Add(-1)
		}
	}
	app.Start()
	self := []ledger.Account{{Name: "self", Role: report.App, PID: os.Getpid()}}
	load := report.Load{Name: "test", Generator: hops.Holder, Kind: report.Idle, Connections: 40}
	for _, tt := range []struct{ name, url, want string }{
		{"only 502", failing.URL, "502"},
		{"nobody there", "http://127.0.0.1:0/", "hold a connection"},
	} {
		s := drivers{}.sample(t.Context(), cell{&report.Result{Load: load}, &hops.Running{URL: tt.url, Accounts: self}}, 1)
		if !strings.Contains(s.Failure, tt.want) || s.Values != nil {
			t.Errorf("%s: failure %q, values %v", tt.name, s.Failure, s.Values)
		}
	}
	s := drivers{}.sample(t.Context(), cell{&report.Result{Load: load}, &hops.Running{URL: app.URL + "/hello", Accounts: self}}, 1)
	app.Close() // which waits for the last of them
	if s.Failure != "" || s.OK != 40 || most.Load() != 40 {
		t.Errorf("%+v; at most %d were open", s, most.Load())
	}
}

func TestGrown(t *testing.T) {
	t.Parallel()
	process := func(role report.Role, inside bool, bytes int64) report.Process {
		return report.Process{Role: role, Inside: inside, GrownBytes: bytes}
	}
	if got, err := grown([]report.Process{process(report.Subject, false, -50), process(report.Subject, true, 50)}, 10); err == nil {
		t.Errorf("memory that shrank is %v", got)
	}
	got, err := grown([]report.Process{
		process(report.Subject, false, 50), process(report.Subject, true, 20), process(report.Subject, true, 10), process(report.App, true, 1000),
	}, 10)
	if want := (map[report.Metric]float64{report.Outside: 5, report.Inside: 3}); err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
}

// TestCharge: what a part of the subject does not tell is told of none of it.
func TestCharge(t *testing.T) {
	t.Parallel()
	n := func(v int64) *int64 { return &v }
	host := report.Process{Role: report.Subject, UserMicros: 30, SystemMicros: 10, Reads: n(1), Writes: n(2), ReadBytes: n(100), WrittenBytes: n(200), SystemCalls: n(8)}
	enclave := report.Process{Role: report.Subject, Inside: true, UserMicros: 60, Allocs: n(20), AllocBytes: n(640)}
	app := report.Process{Role: report.App, UserMicros: 50, SystemCalls: n(1000)}
	s := report.Sample{Values: map[report.Metric]float64{}, Processes: []report.Process{host, enclave, app}}
	charge(&s, 10)
	want := map[report.Metric]float64{
		report.CPU: 10, report.OutsideCPU: 4, report.User: 9, report.System: 1, report.AppCPU: 5, report.Switches: 0,
		report.Calls: 0.3, report.Copied: 30, report.Syscalls: 0.8, report.RSS: 0,
	}
	if !maps.Equal(s.Values, want) {
		t.Errorf("%v, want %v", s.Values, want)
	}
	s = report.Sample{Values: map[report.Metric]float64{}, Processes: []report.Process{enclave, app}}
	s.Processes[0].Inside = false
	charge(&s, 10)
	if _, ok := s.Values[report.OutsideCPU]; ok || s.Values[report.Allocs] != 2 || s.Values[report.AllocBytes] != 64 {
		t.Errorf("alone: %v", s.Values)
	}
}
