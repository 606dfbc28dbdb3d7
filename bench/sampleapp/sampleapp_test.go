package sampleapp_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/corridor-enclave/corridor/bench/sampleapp"
)

func TestApp(t *testing.T) {
	t.Parallel()
	app := sampleapp.New()
	srv := httptest.NewServer(app)
	t.Cleanup(srv.Close)
	fetch := func(u string) string { return "/fetch?url=" + url.QueryEscape(u) }
	tests := []struct {
		name, path, want string
		status           int
	}{
		{"unknown path", "/nothing", "404", 404},
		{"bytes without a number", "/bytes", "n: a number", 400},
		{"too many bytes", "/bytes?n=99999999999", "n: a number", 400},
		{"slow without an end", "/slow?for=2h", "up to a minute", 400},
		{"fetch of nonsense", fetch("::"), "missing protocol", 400},
		{"fetch of nobody", fetch("http://127.0.0.1:1/"), "refused", 502},
		{"too much work", "/hello?work=1h", "up to 10ms", 400},
		{"work in no unit", "/hello?work=1", "up to 10ms", 400},
		{"hello", "/hello", "hello world\n", 200},
		{"hello after work", "/hello?work=10us", "hello world\n", 200},
		{"count", "/count", "2\n", 200},
		{"bytes", "/bytes?n=16", string(read(t, sampleapp.Pattern(16))), 200},
		{"slow", "/slow?for=1ms", "first half\nsecond half\n", 200},
		{"fetch", fetch(srv.URL + "/bytes?n=1000"), sampleapp.PatternSHA256(1000), 200},
	}
	for _, tt := range tests {
		resp, err := http.Get(srv.URL + tt.path)
		if err != nil {
			t.Fatal(err)
		}
		body := string(read(t, resp.Body))
		resp.Body.Close()
		if resp.StatusCode != tt.status || !strings.Contains(body, tt.want) {
			t.Errorf("%s: %d %q, want %d %q", tt.name, resp.StatusCode, body, tt.status, tt.want)
		}
	}
	if app.Hellos() != 2 {
		t.Errorf("Hellos() = %d", app.Hellos())
	}
}

func TestSeenAndEcho(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(sampleapp.New())
	t.Cleanup(srv.Close)
	resp, err := http.Get(srv.URL + "/?a=1;b=2")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var seen sampleapp.Seen
	if err := json.NewDecoder(resp.Body).Decode(&seen); err != nil || seen.URI != "/?a=1;b=2" || seen.Remote == "" {
		t.Fatalf("seen %+v, %v", seen, err)
	}
	for _, said := range []string{"say", strings.Repeat("say", 1<<18)} { // a short one, and one that exceeds all buffers
		echo, err := http.Post(srv.URL+"/echo", "text/plain", strings.NewReader(said))
		if err != nil {
			t.Fatal(err)
		}
		defer echo.Body.Close()
		if got := string(read(t, echo.Body)); got != said {
			t.Fatalf("%d bytes came back of %d", len(got), len(said))
		}
	}
}

func TestPatternNoticesEverySwap(t *testing.T) {
	t.Parallel()
	b := read(t, sampleapp.Pattern(1<<16))
	groups := map[string]bool{}
	for i := 0; i < len(b); i += 8 {
		groups[string(b[i:i+8])] = true
	}
	if len(groups) != len(b)/8 {
		t.Fatalf("%d different groups of %d", len(groups), len(b)/8)
	}
	// Reading in odd pieces gives the same bytes.
	var odd bytes.Buffer
	if _, err := io.CopyBuffer(struct{ io.Writer }{&odd}, sampleapp.Pattern(1<<16), make([]byte, 13)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(odd.Bytes(), b) {
		t.Fatal("the pattern depends on the sizes of the reads")
	}
}

func read(t *testing.T, r io.Reader) []byte {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
