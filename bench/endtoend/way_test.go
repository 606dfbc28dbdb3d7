package endtoend_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/bench/sampleapp"
)

// fetch has the app inside download from outside, and checks what arrived.
func (c *corridor) fetch(origin string, n int64) {
	c.t.Helper()
	body := c.mustGet("/fetch?url=" + url.QueryEscape(fmt.Sprintf("http://%s/bytes?n=%d", origin, n)))
	var got sampleapp.Fetched
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		c.t.Fatalf("%v: %q", err, body)
	}
	if got.Bytes != n || got.SHA256 != sampleapp.PatternSHA256(n) {
		c.t.Fatalf("%d bytes with SHA-256 %s, want %d as sent", got.Bytes, got.SHA256, n)
	}
}

func TestIntegrationWholeWay(t *testing.T) {
	c := newCorridor(t)
	origin := outside(t)

	t.Run("forwarding headers are the proxy's own", func(t *testing.T) {
		req, err := http.NewRequestWithContext(patient(t), http.MethodGet, "https://"+fqdn+"/?a=1;b=2", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Forwarded-For", "203.0.113.7")
		req.Header.Set("X-Real-Ip", "203.0.113.7")
		req.Header.Set("Forwarded", "for=203.0.113.7")
		resp, err := c.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var seen sampleapp.Seen
		if err := json.NewDecoder(resp.Body).Decode(&seen); err != nil {
			t.Fatal(err)
		}
		if seen.URI != "/?a=1;b=2" || seen.Host != fqdn || seen.Header.Get("X-Forwarded-Proto") != "https" {
			t.Errorf("the app saw %+v", seen)
		}
		for name, values := range seen.Header {
			if strings.Contains(strings.Join(values, ","), "203.0.113.7") {
				t.Errorf("the app was told the client's lie: %s: %q", name, values)
			}
		}
	})
	t.Run("download into the enclave", func(t *testing.T) { c.fetch(origin, 16<<20) })
	t.Run("download out of the enclave", func(t *testing.T) {
		got := c.mustGet(fmt.Sprintf("/bytes?n=%d", 16<<20))
		want, err := io.ReadAll(sampleapp.Pattern(16 << 20))
		if err != nil || !bytes.Equal([]byte(got), want) {
			t.Fatalf("%d bytes arrived changed, %v", len(got), err)
		}
	})
	t.Run("what the enclave counts of its link", func(t *testing.T) { c.tells(t) })
	t.Run("a port exposed at run time", func(t *testing.T) { c.exposes(t) })
	t.Run("verified", func(t *testing.T) { c.verifies(t) })
	t.Run("asked to stop", func(t *testing.T) {
		for _, p := range []interface {
			Stop(time.Duration) int
			Tail(int) string
		}{c.enclave, c.host} {
			if code := p.Stop(patience); code != 0 {
				t.Errorf("exit code %d\n%s", code, p.Tail(10))
			}
		}
	})
}

// exposes publishes the front a second time, the way gvproxy's clients do.
func (c *corridor) exposes(t *testing.T) {
	control := c.controlClient()
	t.Cleanup(control.CloseIdleConnections)
	post := func(path, body string) int {
		resp, err := control.Post("http://host"+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // to learn a free port
	if err != nil {
		t.Fatal(err)
	}
	local := l.Addr().String()
	if code := post("/services/forwarder/expose", fmt.Sprintf(`{"local":%q,"remote":"192.168.127.2:443"}`, local)); code == http.StatusOK {
		t.Error("a busy port was exposed")
	}
	l.Close()
	if code := post("/services/forwarder/expose", fmt.Sprintf(`{"local":%q,"remote":"192.168.127.2:443"}`, local)); code != http.StatusOK {
		t.Fatalf("expose: %d", code)
	}
	second := *c
	second.t, second.address = t, local
	second.client = second.newClient()
	if got := second.mustGet("/hello"); got != "hello world\n" {
		t.Errorf("through the second port: %q", got)
	}
	if code := post("/services/forwarder/unexpose", fmt.Sprintf(`{"local":%q}`, local)); code != http.StatusOK {
		t.Fatalf("unexpose: %d", code)
	}
	if conn, err := net.DialTimeout("tcp", local, time.Second); err == nil {
		conn.Close()
		t.Error("the port is still open")
	}
}

// verifies runs the command as a client would, once for each verdict.
func (c *corridor) verifies(t *testing.T) {
	root, policy := filepath.Join(c.trust(), "root.pem"), filepath.Join(c.trust(), "policy.toml")
	target := "https://" + c.address
	zero := strings.Repeat("0", 96)
	tests := []struct {
		name string
		args []string
		code int
		want string
	}{
		{"nobody there", []string{"--root", root, "--policy", policy, "https://127.0.0.1:1"}, 1, "refused"},
		{"nothing to compare with", []string{"--root", root, target}, 2, "pcr"},
		{"the wrong root", []string{"--policy", policy, target}, 3, ""},
		{"other registers", []string{"--root", root, "--pcr", "0=" + zero[:95] + "1", target}, 4, "PCR0"},
		{"as expected", []string{"--root", root, "--policy", policy, target}, 0, "ok"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.CommandContext(patient(t), filepath.Join(bin, "attest"), append([]string{"verify"}, tt.args...)...)
			out, _ := cmd.CombinedOutput() // the code says it all
			if code := cmd.ProcessState.ExitCode(); code != tt.code || !strings.Contains(string(out), tt.want) {
				t.Errorf("exit code %d, want %d and %q:\n%s", code, tt.code, tt.want, out)
			}
		})
	}
}

// TestIntegrationReconnect cuts the link by killing the host: the enclave keeps
// its TAP, and the app and its listeners notice nothing.
func TestIntegrationReconnect(t *testing.T) {
	c := newCorridor(t)
	origin := outside(t)
	for range 3 {
		c.host.Kill()
		c.client.CloseIdleConnections()
		c.startHost(c.address)
		c.untilAnswered()
	}
	c.fetch(origin, 1<<20)
	ups := 0
	for _, r := range c.enclave.Records() {
		if r.Message() == "link is up" {
			ups++
		}
	}
	if ups < 4 {
		t.Errorf("the enclave reported %d connections, want 4 at least", ups)
	}
}

// TestIntegrationEnclaveIsKilled: as often as an enclave dies without a word, the next
// one is served, and the host keeps nothing of those before.
func TestIntegrationEnclaveIsKilled(t *testing.T) {
	c := newCorridor(t)
	held := func() (descriptors, goroutines float64) {
		page := c.hostPage(t, "/metrics")
		return sample(t, page, "process_open_fds"), sample(t, page, "go_goroutines")
	}
	descriptors, goroutines := held()
	for range 5 {
		c.enclave.Kill()
		c.client.CloseIdleConnections()
		c.startEnclave()
		c.untilAnswered()
	}
	c.client.CloseIdleConnections()
	const slack = 20 // connections that are just being closed
	deadline := patient(t)
	for {
		d, g := held()
		if d <= descriptors+slack && g <= goroutines+slack {
			t.Logf("descriptors %v to %v, goroutines %v to %v", descriptors, d, goroutines, g)
			return
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-deadline.Done():
			t.Fatalf("after five dead enclaves %v descriptors and %v goroutines, before %v and %v", d, g, descriptors, goroutines)
		}
	}
}

// tells waits until the enclave's own figures of its link are on the host's page.
func (c *corridor) tells(t *testing.T) {
	deadline := patient(t)
	for {
		page, missing := c.hostPage(t, "/metrics"), ""
		for _, want := range []string{
			`corridor_enclave_link_lanes{cid="16"} `, `corridor_enclave_link_lane_frames_total{cid="16",direction="uplink",lane="0"} `,
			`corridor_enclave_link_gathered_frames_count{cid="16"} `, `corridor_enclave_link_read_bytes_sum{cid="16"} `,
		} {
			if _, value, found := strings.Cut(page, want); !found || strings.HasPrefix(value, "0\n") {
				missing += want + "\n"
			}
		}
		if missing == "" {
			return
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-deadline.Done():
			t.Fatalf("the host's page lacks, or has zero for\n%s", missing)
		}
	}
}

// sample is the value of a sample without labels.
func sample(t *testing.T, page, name string) float64 {
	t.Helper()
	for text := range strings.Lines(page) {
		if value, ok := strings.CutPrefix(text, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatalf("no %s in\n%s", name, page)
	return 0
}

// controlClient asks the host's control address.
func (c *corridor) controlClient() *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", c.control())
		},
	}}
}

// hostPage is a page of the host's control address.
func (c *corridor) hostPage(t *testing.T, path string) string {
	t.Helper()
	client := c.controlClient()
	defer client.CloseIdleConnections()
	status, body, err := get(patient(t), client, "http://host"+path)
	if err != nil || status != http.StatusOK {
		t.Fatalf("%s: %d, %v", path, status, err)
	}
	return body
}

// TestIntegrationDrain asks the enclave to stop while a request is being
// answered: the answer is finished first, and only then is the app stopped.
func TestIntegrationDrain(t *testing.T) {
	c := newCorridor(t, "--drain-timeout", "30s")
	resp, err := c.client.Get("https://" + fqdn + "/slow?for=2s")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := c.enclave.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || string(body) != "first half\nsecond half\n" {
		t.Fatalf("the answer was cut: %q, %v", body, err)
	}
	if code := c.enclave.ExitCode(); code != 0 {
		t.Fatalf("exit code %d\n%s", code, c.enclave.Tail(20))
	}
}

func TestIntegrationSecondSignalKills(t *testing.T) {
	c := newCorridor(t, "--drain-timeout", "10m")
	resp, err := c.client.Get("https://" + fqdn + "/slow?for=1m")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := c.enclave.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	waitMessage(t, c.enclave, "draining")
	if err := c.enclave.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-c.enclave.Done():
	case <-patient(t).Done():
		t.Fatal("the second signal did not kill")
	}
	if code := c.enclave.ExitCode(); code == 0 {
		t.Error("killed, yet exit code 0")
	}
}

// TestIntegrationMachineUntouched: an isolated enclave must not write to the
// resolv.conf or the interfaces of the machine it runs on.
func TestIntegrationMachineUntouched(t *testing.T) {
	before, beforeErr := os.ReadFile("/etc/resolv.conf")
	newCorridor(t)
	after, afterErr := os.ReadFile("/etc/resolv.conf")
	if !bytes.Equal(before, after) || (beforeErr == nil) != (afterErr == nil) {
		t.Errorf("/etc/resolv.conf was %q (%v), is %q (%v)", before, beforeErr, after, afterErr)
	}
	if _, err := net.InterfaceByName("tap0"); err == nil {
		t.Error("tap0 is in the machine's own namespace")
	}
}
