package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corridor-enclave/corridor/bench/report"
)

func TestHTML(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	good, bad, out := filepath.Join(dir, "good.json"), filepath.Join(dir, "bad.json"), filepath.Join(dir, "page.html")
	if err := report.Write(good, &report.Report{Schema: report.Schema, Title: "bench of a test"}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bad, []byte(`{"schema":99}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{nil, exitUsage, "--report: is needed"},
		{[]string{"--report", bad}, exitFailed, "schema 99"},
		{[]string{"--report", filepath.Join(dir, "none")}, exitFailed, "no such file"},
		{[]string{"--report", good, "--out", filepath.Join(dir, "no", "folder")}, exitFailed, "no such file"},
	} {
		code, _, stderr := bench(t, append([]string{"html"}, tt.args...)...)
		if code != tt.code || !strings.Contains(stderr, tt.want) {
			t.Errorf("bench html %q: exit %d, %q; want %d and %q", tt.args, code, stderr, tt.code, tt.want)
		}
	}
	if code, _, stderr := bench(t, "html", "--report", good, "--out", out); code != exitOK {
		t.Fatalf("exit %d, %s", code, stderr)
	}
	written, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	code, printed, _ := bench(t, "html", "--report", good)
	if code != exitOK || printed != string(written) || !strings.Contains(printed, "<h1>bench of a test</h1>") {
		t.Errorf("exit %d; a page of %d bytes was printed and of %d written", code, len(printed), len(written))
	}
}
