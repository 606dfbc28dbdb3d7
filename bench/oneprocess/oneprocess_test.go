package oneprocess_test

import (
	"io"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/corridor-enclave/corridor/bench/oneprocess"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestPointsAreOnTheWay: a request passes the points behind where it entered, and
// no other.
func TestPointsAreOnTheWay(t *testing.T) {
	t.Parallel()
	w, err := oneprocess.Start(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	const slow = 30 * time.Millisecond
	w.RelayPoint.Slow(slow)
	w.ProxyPoint.Slow(slow)
	w.AppPoint.Slow(slow)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for i, url := range []string{w.ToApp, w.ToProxy, w.ToRelay} {
		began := time.Now()
		resp, err := client.Get(url + "/hello")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(body) != "hello world\n" {
			t.Errorf("%s: %q, %v", url, body, err)
		}
		if took, least := time.Since(began), time.Duration(i+1)*slow; took < least {
			t.Errorf("%s: passed %d points in %v, want at least %v", url, i+1, took, least)
		}
	}
	if err := w.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := client.Get(w.ToRelay); err == nil {
		t.Error("a stopped way answers")
	}
}
