package sidecar

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"

	"github.com/corridor-enclave/corridor/enclave/egress"
	"github.com/corridor-enclave/corridor/enclave/supervise"
	"github.com/corridor-enclave/corridor/revproxy"
	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/telemetry"
)

func TestExitStatus(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		want uint64
	}{
		{nil, 0},
		{errors.New("not started"), 1},
		{&supervise.ExitError{Code: 3}, 3},
		{&supervise.ExitError{Code: -1, Signal: syscall.SIGKILL}, 137},
	} {
		if got := exitStatus(tt.err); got != tt.want {
			t.Errorf("%v: %d, want %d", tt.err, got, tt.want)
		}
	}
}

// TestMeasurementsMeanSomething: everything that is collected has a number that
// the host knows, once.
func TestMeasurementsMeanSomething(t *testing.T) {
	t.Parallel()
	s := newTestSidecar(t, "--link", "off", "--fqdn", "a", "--app", "http://127.0.0.1:1")
	m := s.measurements
	m.add(s.streamValues)
	m.add(func(vs []telemetry.Value) []telemetry.Value { return linkValues(vs, tapstack.LinkStatus{Connects: 4}) })
	m.add(func(vs []telemetry.Value) []telemetry.Value {
		return proxyValues(vs, revproxy.Counts{Requests: 9, AppFailures: 2})
	})
	m.add(func(vs []telemetry.Value) []telemetry.Value { return egressValues(vs, egress.Counts{Denied: 5}) })
	cut := m.timed(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	func() {
		defer func() { _ = recover() }()
		cut.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	}()
	known, got := telemetry.Known(), map[uint16]uint64{}
	for _, v := range m.collect() {
		if _, twice := got[v.Metric]; twice || !known[v.Metric] {
			t.Errorf("metric %d is told twice, or nobody knows it", v.Metric)
		}
		got[v.Metric] = v.Value
	}
	if got[telemetry.LinkConnects] != 4 || got[telemetry.ProxyRequests] != 9 || got[telemetry.ProxyAppFailures] != 2 || got[telemetry.EgressDenied] != 5 || got[telemetry.Goroutines] == 0 {
		t.Errorf("collected %v", got)
	}
	if h, ok := telemetry.HistogramOf(got, telemetry.RequestTime); !ok || h.Count() != 1 {
		t.Errorf("%d requests were timed, want the one that was cut", h.Count())
	}
	missing := len(known) - len(got)
	if missing != 3 { // lost twice, by the reporter; requests under way, by the front
		t.Errorf("%d metrics are told by nobody", missing)
	}
}
