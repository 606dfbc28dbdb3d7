package startup_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/corridor-enclave/corridor/host/startup"
	"github.com/corridor-enclave/corridor/tapstack/simvsock"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newPair returns the transports of a parent and of the enclave with CID 16.
func newPair(t *testing.T) (parent, enclave vsockconn.Transport) {
	t.Helper()
	dir, err := os.MkdirTemp("", "give-") // short: it becomes the names of sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if parent, err = simvsock.Dir(dir, vsockconn.CIDParent); err == nil {
		enclave, err = simvsock.Dir(dir, 16)
	}
	if err != nil {
		t.Fatal(err)
	}
	return parent, enclave
}

// wait has an enclave take one configuration and answer.
func wait(t *testing.T, enclave vsockconn.Transport, port uint32, answer func(content []byte) string) {
	t.Helper()
	l, err := enclave.Listen(port)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		content, err := io.ReadAll(c)
		if err != nil {
			t.Error(err)
		}
		_, _ = io.WriteString(c, answer(content))
	}()
}

func digestOf(content []byte) string { return fmt.Sprintf("%x\n", sha256.Sum256(content)) }

func TestGiveFails(t *testing.T) {
	t.Parallel()
	to := vsockconn.Addr{CID: 16, Port: startup.Port}
	for _, tt := range []struct {
		name    string
		content []byte
		answer  func([]byte) string // nil: nobody waits
		err     error
	}{
		{"nothing", nil, digestOf, startup.ErrSize},
		{"too much", make([]byte, startup.MaxSize+1), digestOf, startup.ErrSize},
		{"nobody waits", []byte("x"), nil, startup.ErrAbsent},
		{"no answer", []byte("x"), func([]byte) string { return "" }, startup.ErrNotTaken},
		{"the digest of something else", []byte("x"), func([]byte) string { return digestOf([]byte("y")) }, startup.ErrNotTaken},
		{"an answer without end", []byte("x"), func(b []byte) string { return digestOf(b) + strings.Repeat("x", 1<<16) }, startup.ErrNotTaken},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			parent, enclave := newPair(t)
			if tt.answer != nil {
				wait(t, enclave, startup.Port, tt.answer)
			}
			if _, err := startup.Give(t.Context(), parent, to, tt.content); !errors.Is(err, tt.err) {
				t.Errorf("got %v, want %v", err, tt.err)
			}
		})
	}
}

// TestGiveEndsWithItsContext: an enclave that never answers holds nobody.
func TestGiveEndsWithItsContext(t *testing.T) {
	t.Parallel()
	parent, enclave := newPair(t)
	ctx, cancel := context.WithCancel(t.Context())
	released := make(chan struct{})
	wait(t, enclave, startup.Port, func([]byte) string { cancel(); <-released; return "" })
	_, err := startup.Give(ctx, parent, vsockconn.Addr{CID: 16, Port: startup.Port}, []byte("x"))
	close(released)
	if !errors.Is(err, startup.ErrNotTaken) {
		t.Errorf("got %v, want %v", err, startup.ErrNotTaken)
	}
}

func TestGive(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 1000, startup.MaxSize} {
		parent, enclave := newPair(t)
		content, taken := bytes.Repeat([]byte{7}, size), make(chan []byte, 1)
		wait(t, enclave, 5000, func(b []byte) string { taken <- b; return digestOf(b) })
		digest, err := startup.Give(t.Context(), parent, vsockconn.Addr{CID: 16, Port: 5000}, content)
		if err != nil || digest != sha256.Sum256(content) || !bytes.Equal(<-taken, content) {
			t.Errorf("%d bytes: %x, %v", size, digest, err)
		}
	}
}

func TestHandler(t *testing.T) {
	t.Parallel()
	parent, enclave := newPair(t)
	wait(t, enclave, startup.Port, digestOf)
	wait(t, enclave, 5000, func([]byte) string { return "no\n" })
	mux := http.NewServeMux()
	mux.Handle("POST /v1/enclaves/{cid}/startup", startup.Handler(parent, slog.New(slog.DiscardHandler)))
	for _, tt := range []struct {
		name, path, body string
		status           int
		says             string
	}{
		{"no CID", "/v1/enclaves/x/startup", "a", 400, "not the CID"},
		{"the host", "/v1/enclaves/2/startup", "a", 400, "not the CID"},
		{"every enclave", "/v1/enclaves/4294967295/startup", "a", 400, "not the CID"},
		{"no port", "/v1/enclaves/16/startup?port=x", "a", 400, "not a VSOCK port"},
		{"nothing", "/v1/enclaves/16/startup", "", 400, "1 to 1048576 bytes"},
		{"too much", "/v1/enclaves/16/startup", strings.Repeat("a", startup.MaxSize+1), 400, "too large"},
		{"nobody there", "/v1/enclaves/17/startup", "a", 503, "no enclave waits"},
		{"another answer", "/v1/enclaves/16/startup?port=5000", "a", 502, "has not confirmed"},
		{"taken", "/v1/enclaves/16/startup", "a", 200, `{"sha256":"ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"}`},
	} {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(http.MethodPost, tt.path, strings.NewReader(tt.body)))
		if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.says) {
			t.Errorf("%s: %d %s, want %d %q", tt.name, w.Code, w.Body, tt.status, tt.says)
		}
	}
}
