package status_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/host/balance"
	"github.com/corridor-enclave/corridor/host/gateway"
	"github.com/corridor-enclave/corridor/host/publish"
	"github.com/corridor-enclave/corridor/host/status"
	"github.com/corridor-enclave/corridor/host/telemetry"
	"github.com/corridor-enclave/corridor/tapstack/exposition"
	"github.com/corridor-enclave/corridor/tapstack/netstack"
	wire "github.com/corridor-enclave/corridor/tapstack/telemetry"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// hostile is text that an attacker might get onto the page.
const hostile = `<img src=x onerror="document.title='owned'">`

// A stage is a host whose numbers grow each time that they are asked for, by what
// may happen in the two seconds between.
type stage struct {
	config status.Config
	began  time.Time
	turn   atomic.Uint64
	bytes  atomic.Int64
	dials  *exposition.Histogram
	times  *exposition.Histogram
}

func newStage() *stage {
	s := &stage{began: time.Now(), dials: exposition.NewDurations(), times: exposition.NewDurations()}
	s.config = status.Config{
		Ports: s.ports, Enclaves: s.enclaves, Reports: s.reports,
		Balance: func() []balance.Status {
			return []balance.Status{{CID: 16, Health: "up"}, {CID: 17, Health: "down", Reason: hostile}}
		},
		Now: s.now, Log: slog.New(slog.DiscardHandler),
	}
	return s
}

func (s *stage) now() time.Time { return s.began.Add(2 * time.Second * time.Duration(s.turn.Load())) }

func (s *stage) ports() []publish.Status {
	n := s.turn.Add(1)
	s.dials.ObserveDuration(time.Duration(200+150*(n%7)) * time.Microsecond)
	wave := s.bytes.Add(int64(4+n%9+n%4) << 20)
	return []publish.Status{
		{
			Spec:        publish.Spec{Local: ":8443", Road: publish.Stream, Enclaves: []vsockconn.CID{16, 17}, Port: 1443},
			Connections: 128 + int64(n%5), Accepted: int64(n) * 900, Failed: 3, Refused: map[string]int64{"client": 12},
			DownlinkBytes: wave, UplinkBytes: wave * 5, Dials: s.dials.Snapshot(),
		},
		{Spec: publish.Spec{Local: "127.0.0.1:5432", Road: publish.Link, Enclaves: []vsockconn.CID{18}, Port: 5432}, Dials: exposition.NewDurations().Snapshot()},
	}
}

func (s *stage) enclaves() []gateway.Enclave {
	n := s.turn.Load()
	return []gateway.Enclave{{
		CID: 16, Attached: true, Stats: netstack.Stats{Streams: 1, DownlinkBytes: n << 21, UplinkBytes: uint64(s.bytes.Load()), Drops: netstack.Drops{QueueFull: 7}},
		Flows:    gateway.FlowStats{TCP: gateway.ProtocolStats{Open: 31}, UDP: gateway.ProtocolStats{Open: 2}},
		Refusals: map[string]uint64{"metadata": 14, "denied": 3, "loopback": 0},
	}}
}

func (s *stage) reports() []telemetry.Report {
	n := s.turn.Load()
	for range 100 {
		s.times.ObserveDuration(time.Duration(900+500*(n%6)) * time.Microsecond)
	}
	values := map[uint16]uint64{
		wire.ProxyRequests: n * 2400, wire.ProxyUnderWay: 17, wire.ProxyAppFailures: 2, wire.ProxyClientGone: 40,
		wire.ResidentBytes: 34 << 20, wire.CPU: n * 1e9, wire.AppStarts: 1,
	}
	for _, v := range wire.AppendHistogram(nil, wire.RequestTime, s.times.Snapshot()) {
		values[v.Metric] = v.Value
	}
	return []telemetry.Report{
		{CID: 16, Connected: true, Heard: s.now(), Values: values, Events: map[wire.Code]uint64{wire.Serving: 1}},
		{CID: 17, Heard: s.now().Add(-330 * time.Second), Values: map[uint16]uint64{wire.CPU: 1 << 63}},
	}
}

func get(h http.Handler, path string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", path, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	if host := r.Header.Get("Host"); host != "" {
		r.Host = host
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// TestOtherNamesAreRefused: a browser that was led here by somebody's DNS gets
// nothing; one that came by address does, and so does a program.
func TestOtherNamesAreRefused(t *testing.T) {
	t.Parallel()
	h := status.RefuseStrangers(status.Handler(newStage().config))
	for _, tt := range []struct {
		host, site string
		want       int
	}{
		{"evil.example", "same-origin", 403},
		{"evil.example:8080", "none", 403},
		{"1.evil.example", "same-origin", 403},
		{"127.0.0.1:8080", "same-origin", 200},
		{"[::1]:8080", "none", 200},
		{"localhost", "none", 200},
		{"host.internal:8080", "", 200},
	} {
		for _, path := range []string{"/", "/v1/status"} {
			if got := get(h, path, "Host", tt.host, "Sec-Fetch-Site", tt.site).Code; got != tt.want {
				t.Errorf("%s of %s (%s): %d, want %d", path, tt.host, tt.site, got, tt.want)
			}
		}
	}
}

func TestReadOnly(t *testing.T) {
	t.Parallel()
	h := status.Handler(newStage().config)
	for _, path := range []string{"/", "/status/page.js", "/v1/status", "/healthz", "/readyz"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("POST", path, strings.NewReader("{}")))
		if w.Code != http.StatusMethodNotAllowed {
			t.Errorf("POST %s: %d", path, w.Code)
		}
	}
	for path, contentType := range map[string]string{"/": "text/html", "/status/page.css": "text/css", "/status/page.js": "text/javascript"} {
		w := get(h, path)
		if w.Code != 200 || !strings.HasPrefix(w.Header().Get("Content-Type"), contentType) || w.Header().Get("Content-Security-Policy") != status.Policy {
			t.Errorf("%s: %d, %v", path, w.Code, w.Header())
		}
		if strings.Contains(w.Body.String(), "://") && strings.Contains(strings.ReplaceAll(w.Body.String(), "http://www.w3.org/2000/svg", ""), "://") {
			t.Errorf("%s names something elsewhere", path)
		}
		if again := get(h, path, "If-None-Match", w.Header().Get("ETag")); again.Code != http.StatusNotModified || again.Body.Len() > 0 {
			t.Errorf("%s again: %d", path, again.Code)
		}
	}
}

func TestReady(t *testing.T) {
	t.Parallel()
	port := []publish.Status{{Spec: publish.Spec{Local: ":1", Enclaves: []vsockconn.CID{16}}}}
	for _, tt := range []struct {
		name    string
		ports   []publish.Status
		links   []gateway.Enclave
		balance []balance.Status
		reports []telemetry.Report
		want    int
		says    string
	}{
		{name: "no enclave", ports: port, want: 503, says: "no enclave is there"},
		{name: "its link is lost", ports: port, links: []gateway.Enclave{{CID: 16}}, want: 503, says: "no enclave is there"},
		{
			name: "down", ports: port, links: []gateway.Enclave{{CID: 16, Attached: true}},
			balance: []balance.Status{{CID: 16, Health: "down", Reason: "status 503"}}, want: 503, says: "down: status 503",
		},
		{
			name: "drained", ports: port, links: []gateway.Enclave{{CID: 16, Attached: true}},
			balance: []balance.Status{{CID: 16, Health: "up", Drained: true}}, want: 503, says: "drained",
		},
		{name: "nothing published", want: 200, says: "ready"},
		{name: "linked", ports: port, links: []gateway.Enclave{{CID: 16, Attached: true}}, want: 200, says: "ready"},
		{name: "heard", ports: port, reports: []telemetry.Report{{CID: 16, Connected: true}}, want: 200, says: "ready"},
		{
			name: "one of two", ports: port, want: 200, says: "ready",
			balance: []balance.Status{{CID: 15, Health: "down"}, {CID: 16, Health: "warming"}},
		},
	} {
		h := status.Handler(status.Config{
			Ports:    func() []publish.Status { return tt.ports },
			Enclaves: func() []gateway.Enclave { return tt.links },
			Balance:  func() []balance.Status { return tt.balance },
			Reports:  func() []telemetry.Report { return tt.reports },
			Now:      time.Now, Log: slog.New(slog.DiscardHandler),
		})
		if w := get(h, "/readyz"); w.Code != tt.want || !strings.Contains(w.Body.String(), tt.says) {
			t.Errorf("%s: %d %q, want %d with %q", tt.name, w.Code, w.Body, tt.want, tt.says)
		}
		if w := get(h, "/healthz"); w.Code != 200 {
			t.Errorf("%s: the process is said to be dead: %d", tt.name, w.Code)
		}
	}
}

func TestOverview(t *testing.T) {
	t.Parallel()
	w := get(status.Handler(newStage().config), "/v1/status")
	var o status.Overview
	if err := json.Unmarshal(w.Body.Bytes(), &o); err != nil || w.Header().Get("Cache-Control") != "no-store" {
		t.Fatalf("%v, %v in %s", err, w.Header(), w.Body)
	}
	if len(o.Ports) != 2 || len(o.Enclaves) != 3 || o.Now < o.Began || o.Process.Goroutines == 0 || o.NotReady != "" {
		t.Fatalf("%+v", o)
	}
	e := o.Enclaves[0]
	if e.CID != 16 || !e.Attached || !e.Heard || e.Health != "up" || e.Drops != 7 || e.Flows["tcp"] != 31 || e.Refusals["metadata"] != 14 ||
		e.Told == nil || e.Told.Failures["app-failure"] != 2 || e.Told.Times == nil || e.Told.Events["serving"] != 1 {
		t.Errorf("enclave 16: %+v", e)
	}
	if e := o.Enclaves[1]; e.CID != 17 || e.Attached || e.Heard || e.HeardLast == 0 || e.Reason != hostile || e.Told.CPU <= 0 {
		t.Errorf("enclave 17: %+v", e)
	}
	if e := o.Enclaves[2]; e.CID != 18 || e.Told != nil {
		t.Errorf("enclave 18, which only a port names: %+v", e)
	}
	p := o.Ports[0]
	if p.Port != ":8443=stream:1443@16,17" || p.Refused["client"] != 12 || len(p.Dials.Counts) != len(p.Dials.Bounds)+1 {
		t.Errorf("port: %+v", p)
	}
}
