package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corridor-enclave/corridor/host/startup"
	"github.com/corridor-enclave/corridor/tapstack/simvsock"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// TestConfigure: the operator's command gives an app its configuration, and says so
// only if the enclave has answered with its digest.
func TestConfigure(t *testing.T) {
	t.Parallel()
	s := startHost(t)
	file := filepath.Join(s.dir, "app.toml")
	content := []byte("a = 1\n")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	digest := fmt.Sprintf("%x\n", sha256.Sum256(content))
	if got := s.ctl(t, 1, "configure", "16", file); !strings.Contains(got, "no enclave waits") || !strings.Contains(got, "nothing has changed") {
		t.Errorf("nobody waits: %s", got)
	}
	if got := s.ctl(t, 0, "configure", "--dry-run", "16", file); got != digest {
		t.Errorf("dry run: %s", got)
	}
	s.ctl(t, 2, "configure", "16")
	s.ctl(t, 1, "configure", "16", filepath.Join(s.dir, "missing"))
	s.ctl(t, 1, "configure", "enclave", file)

	transport, err := simvsock.Dir(s.dir, 16)
	if err != nil {
		t.Fatal(err)
	}
	l, err := transport.Listen(startup.Port)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, answer := range []string{"no\n", ""} { // which is the digest of what came
			c, err := l.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			got, err := io.ReadAll(c)
			if err != nil {
				t.Error(err)
			}
			if answer == "" {
				answer = fmt.Sprintf("%x\n", sha256.Sum256(got))
			}
			_, _ = io.WriteString(c, answer)
			c.Close()
		}
	}()
	if got := s.ctl(t, 1, "configure", "16", file); !strings.Contains(got, "has not confirmed") || strings.Contains(got, "nothing has changed") {
		t.Errorf("another answer: %s", got)
	}
	if got := s.ctl(t, 0, "configure", "--wait", "16", file); got != digest {
		t.Errorf("given: %s, want %s", got, digest)
	}
	l.Close()
	<-done
}

// TestCredentials: an enclave gets the role's credentials if the operator wants it,
// and the page of metrics counts it.
func TestCredentials(t *testing.T) {
	t.Parallel()
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "{}")
	}))
	defer service.Close()
	s := startHost(t, "--credentials-port", "1028", "--metadata-service", service.URL)
	transport, err := simvsock.Dir(s.dir, 16)
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return transport.Dial(ctx, vsockconn.Addr{CID: vsockconn.CIDParent, Port: 1028})
	}}}
	for path, want := range map[string]int{"/latest/meta-data/iam/security-credentials/app": 200, "/latest/user-data": 403} {
		question, err := http.NewRequest(http.MethodGet, "http://parent"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		question.Header.Set("X-Aws-Ec2-Metadata-Token", "token")
		answer, err := client.Do(question)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, answer.StatusCode, want)
		}
	}
	if _, page := ask(t, strings.TrimPrefix(s.control, "unix:"), "/metrics"); !strings.Contains(page, `corridor_credentials_total{result="passed"} 1`) {
		t.Errorf("the page does not count it:\n%s", page)
	}
	if got := s.ctl(t, 1, "set", "credentials-port", "1029"); !strings.Contains(got, "credentials-port") {
		t.Errorf("changed while it runs: %s", got)
	}
}
