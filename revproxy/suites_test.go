package revproxy_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/revproxy"
)

// require ends a test that cannot run here, or fails it where everything has to.
func require(t *testing.T, err error, what, remedy string) {
	t.Helper()
	switch {
	case err == nil:
	case os.Getenv("CORRIDOR_REQUIRE") == "all":
		t.Fatalf("needs %s (remedy: %s): %v", what, remedy, err)
	default:
		t.Skipf("needs %s (remedy: %s): %v", what, remedy, err)
	}
}

// TestScenarios runs the scenarios of testdata/vtc, in which varnishtest is
// client and app, with the proxy between them.
func TestScenarios(t *testing.T) {
	t.Parallel()
	_, err := exec.LookPath("varnishtest")
	require(t, err, "varnishtest", "make deps")
	files, err := filepath.Glob("testdata/vtc/*.vtc")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	// http.Transport encodes some targets anew, and reads a body that the app
	// has refused to see.
	beyondNetHTTP := []string{"05_expect_refused", "11_targets", "24_http2"}
	for _, netHTTP := range []bool{false, true} {
		for _, file := range files {
			name := strings.TrimSuffix(filepath.Base(file), ".vtc")
			if netHTTP && slices.Contains(beyondNetHTTP, name) {
				continue
			}
			if netHTTP {
				name += ", net/http"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				scenario(t, file, netHTTP)
			})
		}
	}
}

// scenario runs one file. The app is a unix socket in a folder with a short
// name, because a socket's path may have no more than 107 bytes.
func scenario(t *testing.T, file string, netHTTP bool) {
	dir, err := os.MkdirTemp("", "vtc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	app := filepath.Join(dir, "app")
	front := httptest.NewUnstartedServer(newProxy(t, "unix:"+app, func(c *revproxy.Config) {
		c.NetHTTP, c.ExpectContinueTimeout = netHTTP, patience
	}))
	front.Config.Protocols = new(http.Protocols)
	front.Config.Protocols.SetHTTP1(true)
	front.Config.Protocols.SetUnencryptedHTTP2(true)
	withLane(t, front)
	withH2(t, front)
	front.Start()
	t.Cleanup(front.Close)
	cmd := exec.CommandContext(t.Context(), "varnishtest", "-v", "-t", "30",
		"-D", "app="+app, "-D", "proxy="+front.Listener.Addr().String(), file)
	cmd.WaitDelay = time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestH2spec runs h2spec's generic cases. Those that net/http's server does not pass
// are known: no handler can change them. Ours passes all.
func TestH2spec(t *testing.T) {
	t.Parallel()
	tool := filepath.Join(t.TempDir(), "h2spec")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", tool, "github.com/summerwind/h2spec/cmd/h2spec")
	build.Dir = filepath.Join("..", "bench", "tools")
	out, err := build.CombinedOutput()
	require(t, err, "h2spec: "+string(out), "let go download the module")
	app := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hello")) }))
	front := serveTLS(t, newProxy(t, app.URL, nil), true)
	host, port, _ := strings.Cut(front.Listener.Addr().String(), ":")
	out, _ = exec.CommandContext(t.Context(), tool, "-t", "-k", "-h", host, "-p", port).CombinedOutput() // its status is 1 if one case fails
	summary := regexp.MustCompile(`(\d+) tests, \d+ passed, \d+ skipped, (\d+) failed`).FindSubmatch(out)
	if summary == nil || len(summary[1]) < 3 {
		t.Fatalf("no summary of some hundred cases in\n%s", out)
	}
	known := []string{
		"3: Sends a large size HEADERS frame that exceeds the SETTINGS_MAX_FRAME_SIZE",
		"1: Sends multiple values of SETTINGS_INITIAL_WINDOW_SIZE",
		"1: Sends a HEADERS frame that contains the connection-specific header field",
		"2: Sends a HEADERS frame that contains the TE header field with any value other than \"trailers\"",
	}
	if !laneIsOff() {
		known = nil
	}
	if failed, err := strconv.Atoi(string(summary[2])); err != nil || failed > len(known) {
		t.Errorf("h2spec: %s", summary[0])
	}
	for _, m := range regexp.MustCompile(`(?m)^\s*(?:\x1b\[\d+m)*× (.*?)(?:\x1b.*)?$`).FindAllStringSubmatch(string(out), -1) {
		if !slices.Contains(known, m[1]) {
			t.Errorf("h2spec: %s", m[1])
		}
	}
}
