package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/corridor-enclave/corridor/host/api"
	"github.com/corridor-enclave/corridor/host/gateway"
	"github.com/corridor-enclave/corridor/host/publish"
	"github.com/corridor-enclave/corridor/tapstack/netstack"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// forwarder publishes nothing but remembers.
type forwarder struct{ specs []publish.Spec }

func (f *forwarder) Add(s publish.Spec) (net.Addr, error) {
	for _, old := range f.specs {
		if old.Local == s.Local {
			return nil, fmt.Errorf("%w: %s", publish.ErrPublished, s.Local)
		}
	}
	f.specs = append(f.specs, s)
	return &net.TCPAddr{}, nil
}

func (f *forwarder) Remove(local string) error {
	for i, s := range f.specs {
		if s.Local == local {
			f.specs = append(f.specs[:i], f.specs[i+1:]...)
			return nil
		}
	}
	return publish.ErrNotPublished
}

func (f *forwarder) List() []publish.Spec { return f.specs }

func (f *forwarder) Status() []publish.Status {
	var all []publish.Status
	for _, s := range f.specs {
		all = append(all, publish.Status{Spec: s, Connections: 1, Accepted: 5, Failed: 2, Refused: map[string]int64{"port": 3}})
	}
	return all
}

type enclaves []gateway.Enclave

func (e enclaves) Enclaves() []gateway.Enclave { return e }

func enclave(cid vsockconn.CID) gateway.Enclave {
	return gateway.Enclave{
		CID: cid, Attached: true,
		Stats:    netstack.Stats{DownlinkBytes: 1000 + uint64(cid), UplinkBytes: 2000 + uint64(cid)},
		Counters: map[string]any{"TCP": map[string]any{"Retransmits": uint64(3)}},
		Leases:   map[string]string{"192.168.127.2": cid.String()},
	}
}

// all is the operator's scope.
func all() api.Scope { return api.Scope{CID: vsockconn.CIDAny} }

func handler(f *forwarder, e enclaves, s api.Scope) http.Handler {
	return api.Handler(f, e, s, slog.New(slog.DiscardHandler))
}

// request returns status and body.
func request(h http.Handler, method, path, body string) (int, string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
	return w.Code, strings.TrimSpace(w.Body.String())
}

func TestExposeRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, method, body string
		status             int
		text               string
	}{
		{"GET", http.MethodGet, "", 400, "post only"},
		{"no JSON", http.MethodPost, "local", 400, "invalid character"},
		{"too much", http.MethodPost, `{"local":"` + strings.Repeat("x", 1<<17) + `"}`, 400, "too large"},
		{"no address", http.MethodPost, `{"remote":":443"}`, 400, "address to listen on"},
		{"a local name", http.MethodPost, `{"local":"host:1","remote":":443"}`, 400, "not an IP address"},
		{"no remote", http.MethodPost, `{"local":":1"}`, 400, "missing port"},
		{"another remote", http.MethodPost, `{"local":":1","remote":"192.168.127.3:443"}`, 400, "not the enclave's address"},
		{"a remote port", http.MethodPost, `{"local":":1","remote":":0"}`, 400, "not 1 to 65535"},
		{"udp", http.MethodPost, `{"local":":1","remote":":443","protocol":"udp"}`, 500, "not carried"},
		{"unix", http.MethodPost, `{"local":"/x","remote":"tcp://x","protocol":"unix"}`, 500, "not carried"},
		{"sctp", http.MethodPost, `{"local":":1","remote":":443","protocol":"sctp"}`, 500, "unknown protocol sctp"},
	} {
		f := &forwarder{}
		status, text := request(handler(f, nil, all()), tt.method, "/services/forwarder/expose", tt.body)
		if status != tt.status || !strings.Contains(text, tt.text) || len(f.specs) > 0 {
			t.Errorf("%s: %d %q, %v; want %d with %q", tt.name, status, text, f.specs, tt.status, tt.text)
		}
	}
}

// TestExposeAsGvproxyDoes: statuses and texts are those that scripts know.
func TestExposeAsGvproxyDoes(t *testing.T) {
	t.Parallel()
	f := &forwarder{}
	h := handler(f, nil, all())
	for _, step := range []struct {
		method, path, body string
		status             int
		text               string
	}{
		{"GET", "/services/forwarder/all", "", 200, "[]"},
		{"POST", "/services/forwarder/expose", `{"local":":8443","remote":"192.168.127.2:443"}`, 200, ""},
		{"POST", "/services/forwarder/expose", `{"local":":8443","remote":"192.168.127.2:443","protocol":"tcp"}`, 500, "proxy already running"},
		{"POST", "/services/forwarder/expose", `{"local":"127.0.0.1:1","remote":":2","protocol":"tcp","cid":17}`, 200, ""},
		{"GET", "/services/forwarder/all", "", 200, `[{"local":":8443","remote":"192.168.127.2:443","protocol":"tcp"},` +
			`{"local":"127.0.0.1:1","remote":"192.168.127.2:2","protocol":"tcp","cid":17}]`},
		{"GET", "/services/forwarder/unexpose", "", 400, "post only"},
		{"POST", "/services/forwarder/unexpose", `{"local":":8443","protocol":"tcp"}`, 200, ""},
		{"POST", "/services/forwarder/unexpose", `{"local":":8443"}`, 500, "proxy not found"},
		{"POST", "/services/forwarder/unexpose", `{"local":":8443","protocol":"udp"}`, 500, "protocol udp is not carried: only tcp is"},
		{"GET", "/services/forwarder/none", "", 404, "404 page not found"},
		{"GET", "/connect", "", 404, "404 page not found"},
	} {
		if status, text := request(h, step.method, step.path, step.body); status != step.status || text != step.text {
			t.Errorf("%s %s %s: %d %q, want %d %q", step.method, step.path, step.body, status, text, step.status, step.text)
		}
	}
}

func TestEnclaveSeesItselfAlone(t *testing.T) {
	t.Parallel()
	others := publish.Spec{Local: ":1", Enclaves: []vsockconn.CID{17}, Port: 1}
	anys := publish.Spec{Local: ":2", Port: 2}
	two := enclaves{enclave(16), enclave(17)}

	f := &forwarder{specs: []publish.Spec{others, anys}}
	h := handler(f, two, api.Scope{CID: 16, ReadOnly: true})
	for _, path := range []string{"expose", "unexpose"} {
		if status, _ := request(h, "POST", "/services/forwarder/"+path, `{"local":":2","remote":":1"}`); status != 403 || len(f.specs) != 2 {
			t.Errorf("read-only %s: %d, %v", path, status, f.specs)
		}
	}
	if _, text := request(h, "GET", "/services/forwarder/all", ""); text != "[]" {
		t.Errorf("it sees %s", text)
	}
	if _, text := request(h, "GET", "/leases?cid=17", ""); text != `{"192.168.127.2":"16"}` {
		t.Errorf("it sees the leases %s", text)
	}

	h = handler(f, two, api.Scope{CID: 16})
	if status, text := request(h, "POST", "/services/forwarder/expose", `{"local":":3","remote":":443","cid":17}`); status != 200 {
		t.Fatalf("expose: %d %s", status, text)
	}
	if got := f.specs[2]; !got.LeadsOnlyTo(16) {
		t.Errorf("an enclave published %s", got)
	}
	for local, want := range map[string]int{":1": 500, ":2": 500, ":3": 200} {
		if status, text := request(h, "POST", "/services/forwarder/unexpose", `{"local":"`+local+`"}`); status != want {
			t.Errorf("unexpose %s: %d %s, want %d", local, status, text, want)
		}
	}
}

func TestStatsAndLeases(t *testing.T) {
	t.Parallel()
	gatewayAlone := `{"192.168.127.1":"5a:94:ef:e4:0c:dd"}`
	for _, tt := range []struct {
		name     string
		enclaves enclaves
		query    string
		status   int
		sent     float64
		leases   string
	}{
		{"none", nil, "", 200, 0, gatewayAlone},
		{"one", enclaves{enclave(16)}, "", 200, 1016, `{"192.168.127.2":"16"}`},
		{"several, none named", enclaves{enclave(16), enclave(17)}, "", 400, 0, "there are several enclaves: add ?cid=N"},
		{"several, one named", enclaves{enclave(16), enclave(17)}, "?cid=17", 200, 1017, `{"192.168.127.2":"17"}`},
		{"one that is not there", enclaves{enclave(16)}, "?cid=99", 200, 0, gatewayAlone},
		{"no number", enclaves{enclave(16)}, "?cid=x", 400, 0, `cid "x" is not a CID`},
	} {
		h := handler(&forwarder{}, tt.enclaves, all())
		status, text := request(h, "GET", "/stats"+tt.query, "")
		var stats map[string]any
		if status != tt.status || (status == 200 && json.Unmarshal([]byte(text), &stats) != nil) {
			t.Errorf("%s: stats %d %s", tt.name, status, text)
		}
		if status == 200 && stats["BytesSent"] != tt.sent {
			t.Errorf("%s: BytesSent %v, want %v", tt.name, stats["BytesSent"], tt.sent)
		}
		if status, text := request(h, "GET", "/leases"+tt.query, ""); status != tt.status || text != tt.leases {
			t.Errorf("%s: leases %d %s, want %d %s", tt.name, status, text, tt.status, tt.leases)
		}
	}
}

func TestPagesOfOthersMayNotExpose(t *testing.T) {
	t.Parallel()
	f := &forwarder{}
	r := httptest.NewRequest("POST", "/services/forwarder/expose", strings.NewReader(`{"local":":1","remote":":2"}`))
	r.Header.Set("Origin", "https://evil.example")
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	w := httptest.NewRecorder()
	handler(f, nil, all()).ServeHTTP(w, r)
	if w.Code != http.StatusForbidden || len(f.specs) > 0 {
		t.Errorf("a page of another origin: %d, %v", w.Code, f.specs)
	}
}

func TestListenUnix(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "new", "control.sock")
	l, err := api.Listen("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v; want mode 0600", info, err)
	}
	if second, err := api.Listen("unix:" + path); err == nil || !strings.Contains(err.Error(), "another host runs") {
		t.Errorf("second Listen = %v, %v", second, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("after Close: %v, want the socket gone", err)
	}
	// What a crash leaves behind: a socket without anybody.
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	l, err = api.Listen("unix:" + path)
	if err != nil {
		t.Fatalf("over a stale socket: %v", err)
	}
	l.Close()
}

func TestListenTCP(t *testing.T) {
	t.Parallel()
	l, err := api.Listen("tcp:127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := api.Listen("tcp:" + l.Addr().String()); err == nil || !strings.Contains(err.Error(), "in use by another program") {
		t.Errorf("second Listen = %v", err)
	}
}

func TestServe(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.sock")
	l, err := api.Listen("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := api.Serve(ctx, l, handler(&forwarder{}, nil, all()), slog.New(slog.DiscardHandler)); err != nil {
			t.Errorf("Serve = %v", err)
		}
	})
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		},
	}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://host/services/forwarder/all")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || string(body) != "[]\n" || resp.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%q, %v, %v", body, err, resp.Header)
	}
	stop()
	serving.Wait()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("after Serve: %v, want the socket gone", err)
	}
	l, err = api.Listen("tcp:127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := api.Serve(t.Context(), l, http.NotFoundHandler(), slog.New(slog.DiscardHandler)); err == nil {
		t.Error("Serve on a closed listener gave no error")
	}
}

func TestPublished(t *testing.T) {
	t.Parallel()
	f := &forwarder{specs: []publish.Spec{
		{Local: ":1", Road: publish.Stream, Enclaves: []vsockconn.CID{16}, Port: 1443},
		{Local: ":2", Enclaves: []vsockconn.CID{17}, Port: 443},
	}}
	const (
		first  = `{"port":":1=stream:1443@16","connections":1,"accepted":5,"failed":2,"refused":{"port":3}}`
		second = `{"port":":2=link:443@17","connections":1,"accepted":5,"failed":2,"refused":{"port":3}}`
	)
	for _, tt := range []struct {
		scope  api.Scope
		method string
		status int
		text   string
	}{
		{all(), http.MethodPost, 405, "Method Not Allowed"},
		{all(), http.MethodGet, 200, "[" + first + "," + second + "]"},
		{api.Scope{CID: 17, ReadOnly: true}, http.MethodGet, 200, "[" + second + "]"},
		{api.Scope{CID: 18}, http.MethodGet, 200, "[]"},
	} {
		if status, text := request(handler(f, nil, tt.scope), tt.method, "/v1/published", ""); status != tt.status || text != tt.text {
			t.Errorf("%s in %+v: %d %s, want %d %s", tt.method, tt.scope, status, text, tt.status, tt.text)
		}
	}
	_, text := request(handler(f, nil, all()), http.MethodGet, "/services/forwarder/all", "")
	if !strings.Contains(text, `"remote":"vsock:16:1443"`) || !strings.Contains(text, `"remote":"192.168.127.2:443"`) {
		t.Errorf("all: %s", text)
	}
}
