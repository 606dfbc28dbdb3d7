package main

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corridor-enclave/corridor/bench/report"
	"github.com/corridor-enclave/corridor/bench/sampleapp"
)

func TestSaturateRefusesWhatItCannotDo(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{nil, exitUsage, "no URL"},
		{[]string{"--by", "luck", s.URL}, exitUsage, `--by "luck": none of connections, body, enclaves`},
		{[]string{"--by", "enclaves", s.URL}, exitUsage, "takes no URL"},
		{[]string{"--by", "enclaves", "--bin", t.TempDir()}, exitFailed, "make build"},
		{[]string{"--stage", "30ms", s.URL}, exitFailed, "404"},
		{[]string{"--stage", "30ms", "--max", "0", s.URL}, exitFailed, "nothing to measure"},
	} {
		code, _, stderr := bench(t, append([]string{"saturate"}, tt.args...)...)
		if code != tt.code || !strings.Contains(stderr, tt.want) {
			t.Errorf("bench saturate %q: exit %d, %q; want %d and %q", tt.args, code, stderr, tt.code, tt.want)
		}
	}
}

// TestSaturateAddsToAReport: two runs, one report, three curves.
func TestSaturateAddsToAReport(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(sampleapp.New())
	defer s.Close()
	file := filepath.Join(t.TempDir(), "report.json")
	common := []string{"saturate", "--stage", "60ms", "--max", "2", "--objective", "1m", "--add", file}
	code, stdout, stderr := bench(t, append(common, s.URL+"/hello")...)
	if code != exitOK || !strings.Contains(stdout, "knee at") || !strings.Contains(stdout, "offered_per_second") {
		t.Fatalf("exit %d, %s%s", code, stdout, stderr)
	}
	if code, stdout, stderr := bench(t, append(common, "--by", "body", "--hop", "app", s.URL+"/echo")...); code != exitOK {
		t.Fatalf("by body: exit %d, %s%s", code, stdout, stderr)
	}
	r, err := report.Read(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(r.Command, " "); r.Title != "bench saturate" || !strings.HasPrefix(got, "bench saturate --stage 60ms") || !strings.HasSuffix(got, "/hello") {
		t.Errorf("the report is of %q, by %q", r.Title, got)
	}
	if len(r.Curves) != 3 {
		t.Fatalf("%d curves", len(r.Curves))
	}
	for i, want := range []struct {
		hop    string
		axis   report.Axis
		points int
	}{{"url", report.ByConnections, 2}, {"url", report.ByOffered, 8}, {"app", report.ByBody, 7}} {
		c := r.Curves[i]
		if c.Hop != want.hop || c.Axis != want.axis || len(c.Points) != want.points || c.Points[0].Latency == nil || c.Points[0].Rate <= 0 {
			t.Errorf("curve %d: %s by %s, %d points; want %+v", i, c.Hop, c.Axis, len(c.Points), want)
		}
	}
}
