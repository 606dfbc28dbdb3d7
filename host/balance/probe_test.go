package balance_test

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/host/balance"
)

func TestAskHealth(t *testing.T) {
	t.Parallel()
	front := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/enclave/health" || r.Method != http.MethodGet {
			t.Errorf("asked for %s %s", r.Method, r.URL)
		}
		if r.TLS == nil {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	secure := httptest.NewUnstartedServer(front)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	plain := httptest.NewServer(front)
	defer plain.Close()
	for name, tt := range map[string]struct {
		server *httptest.Server
		secure bool
		want   string
	}{
		"within TLS":   {secure, true, ""},
		"not ready":    {plain, false, "answers 503"},
		"TLS expected": {plain, true, "ask for health"},
		"plain to TLS": {secure, false, "answers 400"},
	} {
		conn, err := net.Dial("tcp", tt.server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		err = balance.AskHealth(t.Context(), conn, tt.secure)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

// TestAskHealthGivesUp on an enclave that accepts and does not answer.
func TestAskHealthGivesUp(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := balance.AskHealth(ctx, conn, false); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("AskHealth = %v", err)
	}
	endless, other := net.Pipe()
	defer other.Close()
	go func() {
		_, _ = other.Read(make([]byte, 1024))
		_, _ = io.WriteString(other, "HTTP/1.1 200 OK\r\nX: "+strings.Repeat("x", 64<<10))
	}()
	if err := balance.AskHealth(t.Context(), endless, false); err == nil {
		t.Error("an endless answer is healthy")
	}
}
