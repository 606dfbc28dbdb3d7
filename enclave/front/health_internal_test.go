package front

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

type readyApp struct{}

func (readyApp) Ready() bool       { return true }
func (readyApp) KeyHash() [32]byte { return [32]byte{} }

// TestHealthWhileDraining: a request that got in just before the stop is told to
// go elsewhere. From outside there is no moment to ask that does not race.
func TestHealthWhileDraining(t *testing.T) {
	t.Parallel()
	f, err := New(Config{App: readyApp{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	f.draining.Store(true)
	w := httptest.NewRecorder()
	f.server.Handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/enclave/health", nil))
	if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "draining") || w.Header().Get("Retry-After") == "" {
		t.Errorf("health = %d %q %q; want 503, draining, Retry-After", w.Code, w.Body, w.Header())
	}
}
